// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a run comes to: percentiles, throughput, and goodput, which counts only answers that kept the limits.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "traffic/generator.h"

namespace tandem {

// 0: none.
struct LatencyLimits {
  double first_token_ms = 0, per_token_ms = 0, end_to_end_ms = 0;
};

// In milliseconds; all zero when there is no value.
struct Spread {
  std::size_t count = 0;
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
};
// The least value that so large a part of all does not exceed. values in any order.
Spread spread_of(std::vector<double> values);

struct LoadReport {
  std::size_t requests = 0, failed = 0, good = 0;  // good: ended well and within the limits
  double seconds = 0;                              // from the first arrival to the last end
  std::int64_t input_tokens = 0, output_tokens = 0;
  Spread first_token, between_pieces, per_token, end_to_end;
  LatencyLimits limits;
  std::vector<std::pair<std::string, std::size_t>> errors;          // how often each, most frequent first
  std::vector<std::pair<std::string, std::size_t>> finish_reasons;  // the same

  double requests_per_second() const { return per_second(static_cast<double>(requests - failed)); }
  double output_tokens_per_second() const { return per_second(static_cast<double>(output_tokens)); }
  double goodput() const { return per_second(static_cast<double>(good)); }

 private:
  double per_second(double count) const { return seconds > 0 ? count / seconds : 0; }
};

LoadReport make_report(std::span<const LoadRecord> records, const LatencyLimits& limits);
std::string report_text(const LoadReport& report);
OrderedJson report_json(const LoadReport& report);

}  // namespace tandem
