// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/slice_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"

namespace tandem {
namespace {

using testing::HasSubstr;
using testing::Not;

SliceReport report() {
  SliceReport r;
  r.options.deployment = SliceDeployment::parse("3A2F");
  r.options.rows = 200;
  r.load = load_of(r.options.deployment, 200);
  r.attention.alone.median = 45'000;
  r.ffn.alone.median = 36'600;
  r.together.median = 50'000;
  r.together.p99 = 51'000;
  return r;
}

TEST(SliceReport, ProjectsWhatOneAttentionGpuMakesToTheWholeDeployment) {
  const SliceReport r = report();
  EXPECT_DOUBLE_EQ(r.tokens_per_second_of_attention_gpu(), 12'000);
  EXPECT_DOUBLE_EQ(r.tokens_per_second_per_gpu(), 12'000 * 24. / 40);
  EXPECT_DOUBLE_EQ(r.stage_of(r.ffn), 36'600 / 183.);
  EXPECT_NEAR(r.bubbles(), .1, 1e-12);
}

TEST(SliceReport, SaysItInWordsAndAsJson) {
  const std::string text = slice_text(report());
  EXPECT_THAT(text, HasSubstr("3A2F at 4096 tokens: 3 x 200 sequences"));
  EXPECT_THAT(text, HasSubstr("bubbles 10.0 %"));
  EXPECT_THAT(text, HasSubstr("7200 tokens/s/GPU of 40"));
  EXPECT_THAT(text, Not(HasSubstr("not the expected")));
  const Json json = Json::parse(slice_json(report()));
  EXPECT_EQ(json.at("deployment").get<std::string>(), "3A2F");
  EXPECT_DOUBLE_EQ(json.at("tokens_per_second_per_gpu").get<double>(), 7200);
  EXPECT_DOUBLE_EQ(json.at("ffn").at("layer_us").get<double>(), 200);
}

TEST(SliceReport, TellsOfHandOversThatWereNotTheExpectedOnes) {
  SliceReport r = report();
  r.mismatches = 3;
  EXPECT_THAT(slice_text(r), HasSubstr("3 hand-overs were not the expected ones"));
}

TEST(SliceReport, ALongRunTellsWhetherItDrifts) {
  SliceReport r = report();
  EXPECT_EQ(r.together.drift(), 1);
  EXPECT_THAT(slice_text(r), Not(HasSubstr("tenth")));
  r.together.all.assign(1000, 50'000);
  std::fill(r.together.all.end() - 90, r.together.all.end(), 51'000);  // most of the last tenth
  r.together.all.front() = 90'000;
  r.memory_growth = 4096;
  EXPECT_DOUBLE_EQ(r.together.drift(), 1.02);
  EXPECT_THAT(slice_text(r), HasSubstr("1000 steps: the last tenth took 1.020 of the first's time, the GPUs' memory "
                                       "grew by 4096 bytes"));
  EXPECT_DOUBLE_EQ(Json::parse(slice_json(r)).at("drift").get<double>(), 1.02);
}

TEST(SliceReport, OfOneSideHasNoWordOfTheOther) {
  SliceReport r = report();
  r.options.sides = SliceSides::kFfn;
  EXPECT_THAT(slice_text(r), Not(HasSubstr("attention  ")));
  EXPECT_THAT(slice_text(r), Not(HasSubstr("together")));
}

}  // namespace
}  // namespace tandem
