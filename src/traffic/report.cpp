// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "traffic/report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/format.h"

namespace tandem {

namespace {

double milliseconds(double nanoseconds) {
  return nanoseconds * 1e-6;
}

bool within(double value_ms, double limit_ms) {
  return limit_ms <= 0 || value_ms <= limit_ms;
}

bool is_good(const LoadRecord& record, const LatencyLimits& limits) {
  return record.ok() && record.first > 0 &&
         within(milliseconds(static_cast<double>(record.time_to_first())), limits.first_token_ms) &&
         within(milliseconds(record.per_token()), limits.per_token_ms) &&
         within(milliseconds(static_cast<double>(record.end_to_end())), limits.end_to_end_ms);
}

using Counts = std::vector<std::pair<std::string, std::size_t>>;

Counts by_frequency(const std::map<std::string, std::size_t>& counts) {
  Counts list(counts.begin(), counts.end());
  std::ranges::stable_sort(list, std::ranges::greater(), &Counts::value_type::second);
  return list;
}

std::string line_of(const char* name, const Spread& s) {
  return format("{:<16} {:>10.2f} {:>10.2f} {:>10.2f} {:>10.2f} {:>10.2f} {:>10.2f}\n", name, s.mean, s.p50, s.p90,
                s.p95, s.p99, s.max);
}

OrderedJson json_of(const Spread& s) {
  return {{"count", s.count}, {"mean", s.mean}, {"p50", s.p50}, {"p90", s.p90},
          {"p95", s.p95},     {"p99", s.p99},   {"max", s.max}};
}

OrderedJson json_of(const Counts& counts) {
  OrderedJson object = OrderedJson::object();
  for (const auto& [what, count] : counts) object[what] = count;
  return object;
}

OrderedJson limit_json(double ms) {
  return ms > 0 ? OrderedJson(ms) : OrderedJson();
}

}  // namespace

Spread spread_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::ranges::sort(values);
  const auto count = static_cast<double>(values.size());
  const auto at = [&](double part) {
    return values[static_cast<std::size_t>(std::max(std::ceil(part * count) - 1, 0.0))];
  };
  return {.count = values.size(),
          .mean = std::accumulate(values.begin(), values.end(), 0.0) / count,
          .p50 = at(0.50),
          .p90 = at(0.90),
          .p95 = at(0.95),
          .p99 = at(0.99),
          .max = values.back()};
}

LoadReport make_report(std::span<const LoadRecord> records, const LatencyLimits& limits) {
  LoadReport report{.requests = records.size(), .limits = limits};
  std::vector<double> first, gaps, tokens, ends;
  std::map<std::string, std::size_t> errors, reasons;
  Nanoseconds begin = INT64_MAX, end = 0;
  for (const LoadRecord& record : records) {
    begin = std::min(begin, record.due);
    end = std::max(end, record.end);
    if (!record.ok()) {
      ++report.failed;
      ++errors[record.error];
      continue;
    }
    ++reasons[record.finish_reason.empty() ? "none" : record.finish_reason];
    report.good += is_good(record, limits);
    report.input_tokens += record.input_tokens;
    report.output_tokens += record.output_tokens;
    ends.push_back(milliseconds(static_cast<double>(record.end_to_end())));
    if (record.first == 0) continue;  // an answer without a word
    first.push_back(milliseconds(static_cast<double>(record.time_to_first())));
    for (const Nanoseconds gap : record.gaps) gaps.push_back(milliseconds(static_cast<double>(gap)));
    if (record.output_tokens > 1) tokens.push_back(milliseconds(record.per_token()));
  }
  report.seconds = records.empty() ? 0 : static_cast<double>(end - begin) * 1e-9;
  report.first_token = spread_of(std::move(first));
  report.between_pieces = spread_of(std::move(gaps));
  report.per_token = spread_of(std::move(tokens));
  report.end_to_end = spread_of(std::move(ends));
  report.errors = by_frequency(errors);
  report.finish_reasons = by_frequency(reasons);
  return report;
}

std::string report_text(const LoadReport& r) {
  std::string text = format("requests         {} in {:.2f} s, {:.2f} per second, {} failed\n", r.requests, r.seconds,
                            r.requests_per_second(), r.failed);
  text += format("tokens           {} in, {} out, {:.1f} out per second\n", r.input_tokens, r.output_tokens,
                 r.output_tokens_per_second());
  text += format("goodput          {:.2f} requests per second, {} of {}", r.goodput(), r.good, r.requests);
  const LatencyLimits& l = r.limits;
  if (l.first_token_ms > 0) text += format(", first token within {} ms", l.first_token_ms);
  if (l.per_token_ms > 0) text += format(", each further one within {} ms", l.per_token_ms);
  if (l.end_to_end_ms > 0) text += format(", all within {} ms", l.end_to_end_ms);
  text +=
      format("\n{:<16} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n", "ms", "mean", "p50", "p90", "p95", "p99", "max");
  text += line_of("first token", r.first_token) + line_of("between pieces", r.between_pieces) +
          line_of("per token", r.per_token) + line_of("end to end", r.end_to_end);
  for (const auto& [reason, count] : r.finish_reasons) text += format("finished         {} × {}\n", count, reason);
  for (const auto& [error, count] : r.errors) text += format("failed           {} × {}\n", count, error);
  return text;
}

OrderedJson report_json(const LoadReport& r) {
  return {{"requests", r.requests},
          {"failed", r.failed},
          {"seconds", r.seconds},
          {"requests_per_second", r.requests_per_second()},
          {"input_tokens", r.input_tokens},
          {"output_tokens", r.output_tokens},
          {"output_tokens_per_second", r.output_tokens_per_second()},
          {"goodput",
           {{"good", r.good},
            {"requests_per_second", r.goodput()},
            {"limits_ms",
             {{"first_token", limit_json(r.limits.first_token_ms)},
              {"per_token", limit_json(r.limits.per_token_ms)},
              {"end_to_end", limit_json(r.limits.end_to_end_ms)}}}}},
          {"first_token_ms", json_of(r.first_token)},
          {"between_pieces_ms", json_of(r.between_pieces)},
          {"per_token_ms", json_of(r.per_token)},
          {"end_to_end_ms", json_of(r.end_to_end)},
          {"finish_reasons", json_of(r.finish_reasons)},
          {"errors", json_of(r.errors)}};
}

}  // namespace tandem
