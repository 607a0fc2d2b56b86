// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bench/attention_stage_problem.h"

#include <gtest/gtest.h>

#include "ops/cuda/device.h"

namespace tandem::cuda {
namespace {

TEST(AttentionStageProblem, EndsInCompleteRowsOfTheRightProducts) {
  const std::string missing = why_unusable(look_at_device());
  if (!missing.empty()) GTEST_SKIP() << missing;
  const AttentionStageProblem problem(70, 200);
  EXPECT_FALSE(problem.is_complete());
  problem.run(nullptr);
  synchronise();
  EXPECT_TRUE(problem.is_complete());
  EXPECT_LT(problem.relative_error(), 3e-3);
}

}  // namespace
}  // namespace tandem::cuda
