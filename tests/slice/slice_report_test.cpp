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
  EXPECT_THAT(text, HasSubstr("3A2F (ep16) at 4096 tokens: 3 x 200 sequences"));
  EXPECT_THAT(text, HasSubstr("bubbles 10.0 %"));
  EXPECT_THAT(text, HasSubstr("7200 tokens/s/GPU of 40"));
  EXPECT_THAT(text, Not(HasSubstr("not the expected")));
  const Json json = Json::parse(slice_json(report()));
  EXPECT_EQ(json.at("deployment").get<std::string>(), "3A2F");
  EXPECT_EQ(json.at("experts").get<std::string>(), "ep16");
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

TEST(SliceReport, TellsWhatWentBeforeTheStepsMeasured) {
  SliceReport r = report();
  EXPECT_THAT(slice_text(r), Not(HasSubstr("measured after")));
  r.together.warm_up = {.steps = 70, .seconds = 3.25, .settled = true};
  EXPECT_THAT(slice_text(r), HasSubstr("measured after 70 steps in 3.2 s, when step times had settled"));
  r.together.warm_up.settled = false;
  EXPECT_THAT(slice_text(r), HasSubstr("when step times had not settled"));
  const Json json = Json::parse(slice_json(r));
  EXPECT_EQ(json.at("warm_up").at("steps").get<int>(), 70);
  EXPECT_FALSE(json.at("warm_up").at("settled").get<bool>());
}

TEST(SliceReport, WithoutSidesAloneHasNoBubbles) {
  SliceReport r = report();
  r.options.alone = false;
  EXPECT_THAT(slice_text(r), HasSubstr("50.00 ms a step, p99 51.00: 12000 tokens/s"));
  EXPECT_THAT(slice_text(r), Not(HasSubstr("floor")));
  EXPECT_FALSE(Json::parse(slice_json(r)).contains("bubbles"));
  EXPECT_DOUBLE_EQ(Json::parse(slice_json(r)).at("step_us").get<double>(), 50'000);
}

TEST(SliceReport, OfOneSideHasNoWordOfTheOther) {
  SliceReport r = report();
  r.options.sides = SliceSides::kFfn;
  EXPECT_THAT(slice_text(r), Not(HasSubstr("attention  ")));
  EXPECT_THAT(slice_text(r), Not(HasSubstr("together")));
}

// Two micro-batches in step: attention 100 microseconds, the way there 5, the FFN 85, of which products are 60.
SliceTrace trace() {
  SliceTrace trace{.steps = 3, .layers = 4, .micro_batches = 2, .clock_error_us = 1.5, .step_us = 800};
  for (int i = 0; i < 12; ++i)
    for (int m = 0; m < 2; ++m) {
      const double from = 200. * i + 100 * m;
      trace.times.push_back({.returned = from,
                             .handed_over = from + 100,
                             .seen = from + 105,
                             .gathered = from + 115,
                             .begun = from + 115,
                             .multiplied = from + 175,
                             .sent = from + 190});
    }
  return trace;
}

TEST(SliceReport, OfATraceHasStagesAndWaits) {
  SliceReport r = report();
  EXPECT_THAT(slice_text(r), Not(HasSubstr("with stamps")));
  EXPECT_FALSE(Json::parse(slice_json(r)).contains("trace"));
  r.trace = trace();
  const std::string text = slice_text(r);
  EXPECT_THAT(text, HasSubstr("3 steps with stamps, 0.80 ms each; the GPUs' clocks are known to 1.5 us"));
  EXPECT_THAT(text, HasSubstr("to the FFN       5.0 us, p99     5.0"));
  EXPECT_THAT(text, HasSubstr("products        60.0 us"));
  EXPECT_THAT(text, HasSubstr("attention GPU idle 0.0 %"));
  EXPECT_THAT(text, Not(HasSubstr("added to links")));
  const Json json = Json::parse(slice_json(r)).at("trace");
  EXPECT_DOUBLE_EQ(json.at("attention").at("p50_us").get<double>(), 100);
  EXPECT_DOUBLE_EQ(json.at("ffn").at("p99_us").get<double>(), 85);
  EXPECT_NEAR(json.at("products_share").get<double>(), .6, .05);
  EXPECT_EQ(json.at("waited_for").get<std::string>(), "attention");  // 10 in 100, and 5 for the way there
}

TEST(SliceReport, AddedTimeOfLinksIsTheirFloorAndItsTimersAreCounted) {
  SliceReport r = report();
  r.trace = trace();
  r.options.rows = 128;
  r.options.model.layers = 4;
  r.options.micro_batches = 2;
  r.options.link = {.latency_us = 20, .gbps = 400};
  r.options.stall_ffn_us = 7;
  // Three servers' hand-overs of 949,504 bytes at 50 GB/s, and returns of 1,835,008.
  EXPECT_EQ(r.options.link.occupied_ns(3. * 949'504), 56'970u);
  const std::string text = slice_text(r);
  EXPECT_THAT(text, HasSubstr("p99     5.0 (floor 77.0)"));
  EXPECT_THAT(text, HasSubstr("(floor 130.1)"));
  EXPECT_THAT(text,
              HasSubstr("added to links: 20.0 us and 400 Gb/s; the timers are a warp of the attention GPU each, at "
                        "least 2.07 of them on average"));
  EXPECT_THAT(text, HasSubstr("the FFN stalls 7.0 us"));
  const Json json = Json::parse(slice_json(r));
  EXPECT_EQ(json.at("link").at("gbps").get<double>(), 400);
  EXPECT_EQ(json.at("stall_ffn_us").get<double>(), 7);
}

TEST(SliceReport, WithoutSidesIsTokensOfEveryGpuAndIsComparedWith) {
  SliceReport baseline = report();
  baseline.options.deployment = SliceDeployment::parse("ep16");
  baseline.options.micro_batches = 2;
  baseline.options.rows = 150;
  baseline.load = load_of(baseline.options.deployment, 150);
  EXPECT_DOUBLE_EQ(baseline.tokens_per_second_per_gpu(), 6'000);
  const std::string text = slice_text(baseline);
  EXPECT_THAT(text, HasSubstr("ep16 at 4096 tokens: 2 x 150 sequences on a GPU, 150 tokens to 3 experts"));
  EXPECT_THAT(text, HasSubstr("6000 tokens/s/GPU of 16"));
  EXPECT_THAT(text, Not(HasSubstr("together")));
  const Json json = Json::parse(slice_json(baseline));
  EXPECT_DOUBLE_EQ(json.at("tokens_per_second_per_gpu").get<double>(), 6'000);
  EXPECT_FALSE(json.contains("ffn"));
  EXPECT_EQ(comparison_text(report(), baseline),
            "3A2F (3 x 200, 50.0 ms) makes 20.0 % more tokens/s/GPU than ep16 (2 x 150, 50.0 ms)\n");
  baseline.together.median = 25'000;
  EXPECT_THAT(comparison_text(report(), baseline), HasSubstr("makes 40.0 % fewer"));
}

}  // namespace
}  // namespace tandem
