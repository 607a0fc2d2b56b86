// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/stage_bench.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "ops/cuda/device.h"

namespace tandem {
namespace {

StageBenchOptions small() {
  StageBenchOptions options;
  options.attention_rows = {8};
  options.contexts = {256, 512};
  options.ffn_servers = {2};
  options.ffn_rows = {256};
  options.samples = 3;
  options.warm_up_seconds = 0;
  return options;
}

TEST(BenchStages, WithoutAGpuItSaysWhatIsMissing) {
  const std::string missing = cuda::why_unusable(cuda::look_at_device());
  if (missing.empty()) GTEST_SKIP() << "there is a GPU";
  try {
    bench_stages(small(), [](const StageTime&) {});
    FAIL() << "stages without a GPU";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
    EXPECT_EQ(error.what(), missing);
  }
}

class StagesOnTheGpu : public testing::Test {
 protected:
  void SetUp() override {
    const std::string missing = cuda::why_unusable(cuda::look_at_device());
    if (!missing.empty()) GTEST_SKIP() << missing;
  }
};

TEST_F(StagesOnTheGpu, EveryKernelIsTimedOnceAtEveryShape) {
  std::multiset<std::string> kernels;
  bench_stages(small(), [&](const StageTime& t) {
    EXPECT_GT(t.microseconds, 0) << t.kernel;
    EXPECT_GE(t.microseconds_beside, 0) << t.kernel;
    EXPECT_EQ(t.rows, t.stage == "ffn" ? 256 : 8);
    EXPECT_EQ(t.gpus, t.stage == "ffn" ? 16 : 0);
    EXPECT_EQ(t.context > 0, t.stage != "ffn");
    kernels.insert(t.stage + " " + t.kernel);
  });
  for (const char* kernel : {"norm-in", "q-down-k-v", "q-up", "rope-append", "o", "norm-out", "router", "seal", "flag"})
    EXPECT_EQ(kernels.count(std::string("attention ") + kernel), 1u) << kernel;
  EXPECT_EQ(kernels.count("attention mfa-decode-fp8"), 2u);  // at both contexts
  EXPECT_EQ(kernels.count("attention layer"), 2u);
  for (const char* kernel : {"norm-head", "head", "sample-greedy", "begin-step"})
    EXPECT_EQ(kernels.count(std::string("head ") + kernel), 1u) << kernel;
  for (const char* kernel :
       {"exchange-rows", "plan-rows", "gather", "gate-up", "down", "exchange-results", "combine", "flag", "layer",
        "dense-plan-rows", "dense-gather", "dense-gate-up", "dense-down", "dense-combine"})
    EXPECT_EQ(kernels.count(std::string("ffn ") + kernel), 1u) << kernel;
  EXPECT_EQ(kernels.size(), 9u + 2 + 2 + 4 + 14);
}

TEST_F(StagesOnTheGpu, RowsOfTheFfnAreWholeServers) {
  StageBenchOptions options = small();
  options.ffn_rows = {250};
  try {
    bench_stages(options, [](const StageTime&) {});
    FAIL() << "250 rows over two servers of eight";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_STREQ(error.what(), "250 rows of the FFN, have to be a multiple of 16");
  }
}

}  // namespace
}  // namespace tandem
