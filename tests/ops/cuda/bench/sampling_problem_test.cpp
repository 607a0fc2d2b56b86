// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bench/sampling_problem.h"

#include <gtest/gtest.h>

#include "tests/ops/cuda/gpu_test.h"

namespace tandem::cuda {
namespace {

class SamplingProblemTest : public GpuTest {};

TEST_F(SamplingProblemTest, DrawsTheTokensOfTheDefinition) {
  for (const SamplingParams& params : {SamplingParams{}, SamplingParams{.temperature = .25f, .top_k = 50, .top_p = .9f},
                                       SamplingParams{.temperature = 1, .repetition_penalty = 1.2f, .logprobs = 5}}) {
    SamplingProblem problem({.rows = 5, .vocab = 3001, .params = params, .context = 40, .copies = 2});
    EXPECT_EQ(problem.differing(), 5) << "nothing was drawn yet";
    problem.run(nullptr, 0);
    synchronise();
    EXPECT_EQ(problem.differing(), 0);
    EXPECT_GT(problem.median_call_microseconds(1), 0);
  }
}

}  // namespace
}  // namespace tandem::cuda
