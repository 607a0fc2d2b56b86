// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Counters and histograms of the server, and the Prometheus page made of them and of what the engine counts. Names are
// those of vLLM with another prefix, so that dashboards move over with one replacement.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>

#include "engine/engine.h"

namespace tandem {

// Buckets are upper bounds; the last one is infinite. Any thread.
class Histogram {
 public:
  static constexpr std::size_t kBucketsMax = 20;
  explicit Histogram(std::span<const double> bounds) : bounds_(bounds) {}
  void observe(double value, std::int64_t times = 1);
  void write(std::string& page, std::string_view name) const;

 private:
  std::span<const double> bounds_;
  std::array<std::atomic<std::int64_t>, kBucketsMax + 1> counts_{};
  std::atomic<std::int64_t> sum_us_{0};  // millionths, so that adding needs no lock
};

class Metrics {
 public:
  Metrics();

  // Answers
  std::atomic<std::int64_t> answers_running{0};
  std::atomic<std::int64_t> prompt_tokens{0}, answer_tokens{0};
  std::atomic<std::int64_t> unknown_fields{0};
  std::array<std::atomic<std::int64_t>, 5> finished{};  // by FinishReason
  Histogram first_token_seconds, between_tokens_seconds, answer_seconds;
  Histogram prompt_lengths, answer_lengths;
  // Exchanges
  std::atomic<std::int64_t> connections{0}, clients_gone{0}, log_lines_lost{0};
  void count_response(int status);

  std::string page(const Engine& engine) const;

 private:
  mutable std::mutex mutex_;               // guards responses_
  std::map<int, std::int64_t> responses_;  // by status; our own statuses, so it stays small
};

// One row per metric: for the page of docs.
struct MetricRow {
  std::string_view name, kind, doc;
};
std::span<const MetricRow> metric_rows();

}  // namespace tandem
