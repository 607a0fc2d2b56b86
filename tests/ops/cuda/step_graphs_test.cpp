// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/step_graphs.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "ops/cuda/cuda_backend.h"
#include "ops/cuda/device.h"
#include "tests/ops/case_builder.h"

namespace tandem {
namespace {

// A step that adds x to a sum, through the backend.
class StepGraphsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = cuda::why_unusable(cuda::look_at_device()); !reason.empty()) GTEST_SKIP() << reason;
    gpu_ = make_cuda_backend();
    builder_ = std::make_unique<CaseBuilder>(*gpu_);
    stream_ = builder_->zeros(1, 8);
    x_ = builder_->zeros(1, 8);
    out_ = builder_->zeros(1, 8);
    weight_ = builder_->zeros(1, 8);
    for (int i = 0; i < 8; ++i) x_.f32()[i] = 1;
  }
  void step(std::int64_t key) {
    gpu_->replay(std::span(&key, 1), [&] {
      ++asked_;
      gpu_->run(AddRmsNorm{out_, stream_, x_, weight_, 1e-5f});
    });
    gpu_->synchronise();
  }
  float sum() const { return stream_.f32()[7]; }

  std::unique_ptr<Backend> gpu_;
  std::unique_ptr<CaseBuilder> builder_;
  Tensor stream_, x_, out_, weight_;
  int asked_ = 0;
};

TEST_F(StepGraphsTest, AStepIsAskedForTwiceAndRunsEveryTime) {
  for (int i = 1; i <= 6; ++i) {
    step(1);
    EXPECT_EQ(sum(), static_cast<float>(i));
    EXPECT_EQ(asked_, std::min(i, 2));
  }
}

TEST_F(StepGraphsTest, AReplayedStepSeesWhatItsMemoryHoldsNow) {
  for (int i = 0; i < 3; ++i) step(1);
  for (int i = 0; i < 8; ++i) x_.f32()[i] = 10;
  step(1);
  EXPECT_EQ(sum(), 13);
}

TEST_F(StepGraphsTest, TheOldestGoWhenThereAreTooMany) {
  constexpr auto kMax = static_cast<std::int64_t>(cuda::StepGraphs::kGraphsMax);
  for (int round = 0; round < 2; ++round)
    for (std::int64_t key = 0; key < kMax; ++key) step(key);
  EXPECT_EQ(asked_, 2 * kMax);
  step(kMax);  // key 0 goes
  step(1);
  EXPECT_EQ(asked_, 2 * kMax + 1) << "key 1 is still there";
  step(0);
  EXPECT_EQ(asked_, 2 * kMax + 2);
  EXPECT_EQ(sum(), static_cast<float>(2 * kMax + 3));
}

TEST_F(StepGraphsTest, AnErrorWhileRecordingLeavesTheStreamUsable) {
  step(1);
  const std::int64_t key = 1;
  EXPECT_THROW(gpu_->replay(std::span(&key, 1),
                            [&] {
                              gpu_->run(AddRmsNorm{out_, stream_, x_, weight_, 1e-5f});
                              throw std::runtime_error("no");
                            }),
               std::runtime_error);
  gpu_->synchronise();
  EXPECT_EQ(sum(), 1) << "what was recorded has not run";
  step(1);
  step(1);
  EXPECT_EQ(sum(), 3);
}

}  // namespace
}  // namespace tandem
