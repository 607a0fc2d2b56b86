// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "traffic/report.h"

#include <gmock/gmock.h>

namespace tandem {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

constexpr Nanoseconds kMs = 1'000'000;

LoadRecord record(Nanoseconds due_ms, Nanoseconds first_ms, Nanoseconds gap_ms, std::int64_t tokens) {
  LoadRecord r{.due = due_ms * kMs, .first = (due_ms + first_ms) * kMs};
  r.gaps.assign(static_cast<std::size_t>(tokens - 1), gap_ms * kMs);
  r.last = r.first + gap_ms * kMs * (tokens - 1);
  r.end = r.last + kMs;
  r.input_tokens = 10;
  r.output_tokens = tokens;
  r.finish_reason = "length";
  return r;
}

TEST(Report, percentiles_are_values_that_so_many_do_not_exceed) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  const Spread spread = spread_of(values);
  EXPECT_EQ(spread.p50, 50);
  EXPECT_EQ(spread.p90, 90);
  EXPECT_EQ(spread.p99, 99);
  EXPECT_EQ(spread.max, 100);
  EXPECT_EQ(spread.mean, 50.5);
  EXPECT_EQ(spread_of({7}).p99, 7);
  EXPECT_EQ(spread_of({}).count, 0U);
}

TEST(Report, goodput_counts_answers_that_kept_every_limit) {
  std::vector<LoadRecord> records = {record(0, 100, 10, 11), record(0, 300, 10, 11), record(100, 100, 50, 11),
                                     record(100, 100, 10, 11)};
  records.push_back({.due = 0, .end = 5 * kMs, .error = "status 429: x"});
  records.push_back({.due = 0, .end = 5 * kMs, .error = "status 429: x"});
  records.push_back({.due = 0, .end = 5 * kMs, .error = "lost"});
  const LoadReport all = make_report(records, {});
  EXPECT_EQ(all.requests, 7U);
  EXPECT_EQ(all.failed, 3U);
  EXPECT_EQ(all.good, 4U);
  EXPECT_EQ(all.output_tokens, 44);
  EXPECT_EQ(all.input_tokens, 40);
  EXPECT_DOUBLE_EQ(all.seconds, 0.701);
  EXPECT_DOUBLE_EQ(all.requests_per_second(), 4 / 0.701);
  EXPECT_DOUBLE_EQ(all.per_token.p50, 10);
  EXPECT_DOUBLE_EQ(all.per_token.max, 50);
  EXPECT_DOUBLE_EQ(all.first_token.max, 300);
  EXPECT_DOUBLE_EQ(all.end_to_end.p50, 201);
  EXPECT_EQ(all.between_pieces.count, 40U);
  EXPECT_THAT(all.errors, ElementsAre(Pair("status 429: x", 2), Pair("lost", 1)));
  EXPECT_THAT(all.finish_reasons, ElementsAre(Pair("length", 4)));
  EXPECT_EQ(make_report(records, {.first_token_ms = 200}).good, 3U);
  EXPECT_EQ(make_report(records, {.per_token_ms = 20}).good, 3U);
  EXPECT_EQ(make_report(records, {.end_to_end_ms = 201}).good, 2U);
  EXPECT_EQ(make_report(records, {.first_token_ms = 200, .per_token_ms = 20}).good, 2U);
}

TEST(Report, as_text_and_as_json) {
  const std::vector<LoadRecord> records = {record(0, 100, 10, 11)};
  const LoadReport report = make_report(records, {.first_token_ms = 50});
  EXPECT_THAT(report_text(report), HasSubstr("0 of 1, first token within 50 ms"));
  const OrderedJson json = report_json(report);
  EXPECT_EQ(json["first_token_ms"]["p50"], 100);
  EXPECT_EQ(json["goodput"]["limits_ms"]["first_token"], 50);
  EXPECT_TRUE(json["goodput"]["limits_ms"]["per_token"].is_null());
  EXPECT_EQ(json["finish_reasons"]["length"], 1);
  EXPECT_EQ(make_report({}, {}).seconds, 0) << "of nothing there is something to tell, too";
}

}  // namespace
}  // namespace tandem
