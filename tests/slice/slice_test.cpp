// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/slice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "base/error.h"
#include "ops/cuda/device.h"

namespace tandem {
namespace {

const cuda::GpuLimits kLimits{.read_bytes_per_second = 4e12, .fp8_flops_per_second = 1e15};

// Full width, few layers and rows. Where there is one GPU, its sides are alone.
SliceOptions small(SliceSides sides) {
  SliceOptions options;
  options.model.layers = 7;
  options.rows = 24;
  options.context = 256;
  options.sides = sides;
  options.ffn_gpu = sides == SliceSides::kBoth ? 1 : 0;
  options.steps = 8;
  options.warm_up_seconds = .02;
  return options;
}

TEST(Slice, WithoutAGpuItSaysWhatIsMissing) {
  const std::string missing = cuda::why_unusable(cuda::look_at_device());
  if (missing.empty()) GTEST_SKIP() << "there is a GPU";
  try {
    measure_slice(small(SliceSides::kBoth), kLimits);
    FAIL() << "a slice without a GPU";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
    EXPECT_EQ(error.what(), missing);
  }
}

class SliceOnTheGpu : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string missing = cuda::why_unusable(cuda::look_at_device());
    if (!missing.empty()) GTEST_SKIP() << missing;
  }
};

// The seals say that every hand-over of every step was the expected one; measure_slice looks at the tokens itself.
TEST_P(SliceOnTheGpu, EveryHandOverIsTheExpectedOne) {
  if (cuda::look_at_device().devices < 2) GTEST_SKIP() << "there is one GPU";
  SliceOptions options = small(SliceSides::kBoth);
  options.deployment = SliceDeployment::parse(GetParam());
  options.zipf_exponent = .5;
  const SliceReport report = measure_slice(options, kLimits);
  EXPECT_EQ(report.mismatches, 0u);
  EXPECT_EQ(report.together.all.size(), 8u);
  EXPECT_GT(report.together.median, 0);
  EXPECT_GT(report.expert_rows_max, report.load.expert_rows_mean);
}

TEST_P(SliceOnTheGpu, ASideAloneReturnsToItself) {
  for (const SliceSides sides : {SliceSides::kAttention, SliceSides::kFfn}) {
    SliceOptions options = small(sides);
    options.deployment = SliceDeployment::parse(GetParam());
    const SliceReport report = measure_slice(options, kLimits);
    EXPECT_EQ(report.together.all.size(), 8u);
    EXPECT_GT(report.together.median, 0);
  }
}

// Of a micro-batch one point comes after the other, as far as both sides' clocks are known.
void expect_in_order(const SliceTrace& trace) {
  ASSERT_EQ(trace.times.size(), static_cast<std::size_t>(trace.steps * trace.layers * trace.micro_batches));
  const double error = trace.clock_error_us;
  for (const LayerTimes& t : trace.times) {
    if (trace.attention) {
      EXPECT_LT(t.returned, t.handed_over);
    }
    if (!trace.ffn) continue;
    EXPECT_LE(t.seen, t.gathered);
    EXPECT_LE(t.gathered, t.begun);
    EXPECT_LT(t.begun, t.multiplied);
    EXPECT_LT(t.multiplied, t.sent);
    if (trace.attention) {
      EXPECT_LE(t.handed_over, t.seen + error);
    }
  }
  for (std::size_t i = static_cast<std::size_t>(trace.micro_batches); i < trace.times.size(); ++i) {
    const LayerTimes &t = trace.times[i], &before = trace.times[i - static_cast<std::size_t>(trace.micro_batches)];
    if (trace.attention && trace.ffn) {
      EXPECT_LE(before.sent, t.returned + error);
    }
    if (!trace.ffn) {
      EXPECT_LE(before.handed_over, t.returned);
    }
    if (!trace.attention) {
      EXPECT_LE(before.sent, t.seen);
    }
  }
}

TEST_F(SliceOnTheGpu, StampsOfASideAloneAreInOrder) {
  for (const SliceSides sides : {SliceSides::kAttention, SliceSides::kFfn}) {
    SliceOptions options = small(sides);
    options.trace_steps = 4;
    const SliceReport report = measure_slice(options, kLimits);
    EXPECT_EQ(report.trace.steps, 4);
    EXPECT_GT(report.trace.step_us, 0);
    expect_in_order(report.trace);
  }
}

TEST_F(SliceOnTheGpu, StampsOfBothSidesAreInOrder) {
  if (cuda::look_at_device().devices < 2) GTEST_SKIP() << "there is one GPU";
  SliceOptions options = small(SliceSides::kBoth);
  options.trace_steps = 5;
  const SliceTrace trace = measure_slice(options, kLimits).trace;
  EXPECT_GT(trace.clock_error_us, 0);
  EXPECT_LT(trace.clock_error_us, 20);
  expect_in_order(trace);
}

// A link or an FFN that is made slow is what the report names, and all of its time is in the stage it belongs to.
TEST_F(SliceOnTheGpu, ASlowLinkAndASlowFfnAreNamed) {
  if (cuda::look_at_device().devices < 2) GTEST_SKIP() << "there is one GPU";
  SliceOptions options = small(SliceSides::kBoth);
  options.trace_steps = 6;
  options.link = {.latency_us = 1000};
  const TraceSummary link = summary_of(measure_slice(options, kLimits).trace);
  EXPECT_EQ(link.waited_for(), SlowPart::kLink);
  EXPECT_GE(link.stages.to_ffn.p50, 1000);
  EXPECT_GE(link.stages.to_attention.p50, 1000);
  EXPECT_LT(link.stages.attention.p50, 1000);

  options.link = {};
  options.stall_ffn_us = 1000;
  const TraceSummary ffn = summary_of(measure_slice(options, kLimits).trace);
  EXPECT_EQ(ffn.waited_for(), SlowPart::kFfn);
  EXPECT_GE(ffn.stages.products.p50, 1000);
  EXPECT_LT(ffn.stages.to_attention.p50, 1000);
}

TEST_P(SliceOnTheGpu, ExpertsWhoseWidthIsCutGetWhatIsTheirs) {
  const bool two = cuda::look_at_device().devices > 1;
  SliceOptions options = small(two ? SliceSides::kBoth : SliceSides::kFfn);
  options.deployment = SliceDeployment::parse(GetParam());
  options.deployment.width_is_cut = true;
  const SliceReport report = measure_slice(options, kLimits);
  EXPECT_EQ(report.mismatches, 0u);
  EXPECT_EQ(report.together.all.size(), 8u);
  EXPECT_GT(report.together.median, 0);
}

// On one GPU, too: what is exchanged stays on it then.
TEST_F(SliceOnTheGpu, ExpertsBesideAttentionGetWhatIsTheirs) {
  for (const char* layout : {"ep16", "ep24"})
    for (const bool two : {false, true}) {
      if (two && cuda::look_at_device().devices < 2) continue;
      SliceOptions options = small(two ? SliceSides::kBoth : SliceSides::kAttention);
      options.deployment = SliceDeployment::parse(layout);
      options.micro_batches = 2;
      options.link = {.latency_us = 5, .gbps = 400};
      const SliceReport report = measure_slice(options, kLimits);
      EXPECT_EQ(report.mismatches, 0u) << layout;
      EXPECT_EQ(report.together.all.size(), 8u);
      EXPECT_GT(report.together.median, 0);
      EXPECT_GT(report.attention.gigabytes, 0);
    }
}

// One that there is no memory for disturbs no other, wherever it stands.
TEST_F(SliceOnTheGpu, BatchesAreMeasuredOneAfterTheOther) {
  constexpr SliceBatch kTooMuch{.micro_batches = 8, .rows = SliceOptions::kRowsMax};
  const bool two = cuda::look_at_device().devices > 1;
  for (const char* deployment : {"2A2F", "ep16"}) {
    SliceOptions options = small(two ? SliceSides::kBoth : SliceSides::kAttention);
    options.deployment = SliceDeployment::parse(deployment);
    options.context = 65536;
    options.alone = false;
    const SliceBatch two_of_eight{.micro_batches = 2, .rows = 8}, three_of_five{.micro_batches = 3, .rows = 5};
    const std::vector<SliceBatch> batches{kTooMuch, two_of_eight, kTooMuch, kTooMuch, three_of_five};
    std::vector<SliceBatch> measured, without_room;
    measure_batches(options, batches, kLimits,
                    {.on_report =
                         [&](const SliceReport& report) {
                           measured.push_back(report.options.batch());
                           EXPECT_EQ(report.mismatches, 0u) << deployment;
                           EXPECT_EQ(report.together.all.size(), 8u) << deployment;
                         },
                     .on_no_room =
                         [&](const SliceBatch& batch, const Error& error) {
                           without_room.push_back(batch);
                           EXPECT_EQ(error.code(), ErrorCode::kOutOfResources);
                         }});
    EXPECT_EQ(measured, (std::vector<SliceBatch>{two_of_eight, three_of_five})) << deployment;
    EXPECT_EQ(without_room, (std::vector<SliceBatch>(3, kTooMuch))) << deployment;
  }
}

// Of slices whose rows change while their weights stay, on one GPU as on two.
TEST_F(SliceOnTheGpu, TheBestBatchKeepsTheTime) {
  const bool two = cuda::look_at_device().devices > 1;
  for (const char* deployment : {"2A2F", "ep16"}) {
    SliceOptions options = small(two ? SliceSides::kBoth : SliceSides::kAttention);
    options.deployment = SliceDeployment::parse(deployment);
    options.context = 4096;
    options.rows = 64;
    options.alone = false;
    options.warm_up_seconds = .2;
    const double tpot_us = 1.25 * measure_slice(options, kLimits).together.median;
    std::map<std::int32_t, std::vector<std::int32_t>> tried;  // rows of each number of micro-batches
    double most = 0;
    const SliceSearch search{.tpot_us = tpot_us, .micro_batches = {3, 2}};
    const SliceReport best = best_slice(options, search, kLimits, [&](const SliceReport& report) {
      EXPECT_EQ(report.mismatches, 0u) << deployment << ", " << report.options.rows;
      tried[report.options.micro_batches].push_back(report.options.rows);
      if (report.together.median <= tpot_us) most = std::max(most, report.tokens_per_second_per_gpu());
    });
    EXPECT_EQ(tried.size(), 2u) << deployment;
    EXPECT_GE(tried[3].size(), 2u) << deployment;
    EXPECT_GE(best.options.rows, 40) << testing::PrintToString(tried);
    EXPECT_LT(best.options.rows * best.options.micro_batches, 3 * 128) << testing::PrintToString(tried);
    EXPECT_GE(best.tokens_per_second_per_gpu(), .7 * most) << testing::PrintToString(tried);
    EXPECT_LE(best.together.median, tpot_us) << deployment;
    EXPECT_EQ(best.mismatches, 0u) << deployment;
    EXPECT_EQ(best.together.all.size(), 8u) << deployment;
  }
}

// Either way of waiting, and what one of them leaves out.
TEST_F(SliceOnTheGpu, HandOversAreWaitedForByThreadsOrFrontEnds) {
  if (cuda::look_at_device().devices < 2) GTEST_SKIP() << "there is one GPU";
  for (const cuda::FlagsBy flags : {cuda::FlagsBy::kThreads, cuda::FlagsBy::kFrontEnds}) {
    SliceOptions options = small(SliceSides::kBoth);
    options.flags = flags;
    options.alone = false;
    options.steps = 40;
    const SliceReport report = measure_slice(options, kLimits);
    EXPECT_EQ(report.mismatches, 0u);
    EXPECT_GT(report.together.median, 0);
    EXPECT_EQ(report.ffn.alone.median, 0);
    EXPECT_FALSE(report.sides_alone());
  }
}

INSTANTIATE_TEST_SUITE_P(Deployments, SliceOnTheGpu, testing::Values("2A2F", "3A2F", "1A3F", "4A1F"));

TEST_F(SliceOnTheGpu, TooManySequencesAreRefusedWithTheNumbers) {
  SliceOptions options = small(SliceSides::kAttention);
  options.rows = 1024;
  options.context = 65536;
  options.model.layers = 61;
  try {
    measure_slice(options, kLimits);
    FAIL() << "a cache of terabytes";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfResources);
    EXPECT_NE(std::string(error.what()).find("3 x 1024 sequences of 65536 tokens"), std::string::npos);
  }
}

TEST_F(SliceOnTheGpu, OneGpuIsNotBothSidesAtOnce) {
  SliceOptions options = small(SliceSides::kBoth);
  options.ffn_gpu = 0;
  try {
    measure_slice(options, kLimits);
    FAIL() << "both sides on one GPU";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("GPU 0 for both sides"), std::string::npos);
  }
}

}  // namespace
}  // namespace tandem
