// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/slice.h"

#include <gtest/gtest.h>

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
