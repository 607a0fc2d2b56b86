// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What is asked for and when: made before anything is sent, and the same for the same settings wherever it is made.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"

namespace tandem {

struct TokenRange {
  std::int64_t min = 0, max = 0;  // each length between is as likely

  // Of an even spread over whole numbers, near enough: those of the line between its ends.
  double mean() const { return (static_cast<double>(min) + static_cast<double>(max)) / 2; }
  double mean_square() const {
    const auto a = static_cast<double>(min), b = static_cast<double>(max);
    return (a * a + a * b + b * b) / 3;
  }
};
// "128" or "64:512". Throws Error.
TokenRange parse_token_range(const std::string& text);

struct WorkloadConfig {
  std::int64_t requests = 100;
  double rate = 0;  // requests per second that arrive at random (Poisson); 0: each goes as soon as it may
  TokenRange input{128, 128}, output{64, 64};
  std::uint64_t seed = 1;
  bool chat = true;         // else completions of text
  bool stop_early = false;  // answers may end before their length
  double temperature = 0;
  std::string model;
  std::string dataset;  // JSONL file; empty: prompts are made up
};

struct LoadRequest {
  Nanoseconds arrival = 0;  // since the start
  std::string body;         // JSON
};

// A made-up prompt is a row of common short words, in most vocabularies one token each, so that its length is about
// what was asked for; what the server counted is in the report. Lines of a dataset are objects with a prompt or
// messages and any other field of a request; the lines are taken in order, from the start again when there are fewer
// than requests. Throws Error naming file and line.
std::vector<LoadRequest> make_workload(const WorkloadConfig& config);

}  // namespace tandem
