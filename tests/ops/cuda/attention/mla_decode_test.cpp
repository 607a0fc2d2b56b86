// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention/mla_decode.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/scalar.h"
#include "ops/cuda/attention/mla_attention.h"
#include "ops/cuda/attention/mla_prepare.h"
#include "ops/cuda/bench/mla_problem.h"
#include "tests/ops/cuda/gpu_test.h"

namespace tandem::cuda {
namespace {

class MlaTest : public GpuTest {};

struct Case {
  const char* name;
  std::vector<std::int32_t> lengths;
  float score_deviation = 1, mean = 0;
  bool deterministic = false;
  std::vector<std::int32_t> compared{0};
};

std::vector<Case> cases() {
  return {
      {"one token", {1}},
      {"63 and 64 and 65 and 128 and 129", {63, 64, 65, 128, 129}, 1, .5f, false, {0, 1, 2, 3, 4}},
      {"flat scores", {4096, 4095}, .5f, .5f, false, {0, 1}},
      {"deviation 4", {4096}, 4, 0},
      {"deviation 4 with a mean", {4096}, 4, .5f},
      {"32K", {32768}, 1, .25f},
      {"not split: a cluster for each", std::vector<std::int32_t>(66, 640), 1, .5f, false, {0, 65}},
      {"several pieces a cluster", std::vector<std::int32_t>(300, 200), 1, .5f, false, {0, 7, 150, 299}},
      {"ragged", ragged(90, 3000), 1, .5f, false, {0, 1, 2, 3, 45, 89}},
      {"ragged, fixed splits", ragged(40, 9000), 2, .5f, true, {0, 1, 2, 39}},
  };
}

TEST_F(MlaTest, AgreesWithTheReferenceOverTheSameCache) {
  for (const Case& c : cases()) {
    MlaProblem problem(
        {.lengths = c.lengths, .score_deviation = c.score_deviation, .mean = c.mean, .deterministic = c.deterministic});
    problem.poison_output();
    problem.run(nullptr, 0);
    synchronise();
    const double error = problem.relative_error(c.compared);
    std::printf("%-34s error %.2e   %s\n", c.name, error, problem.schedule().to_string().c_str());
    EXPECT_LE(error, 4e-3) << c.name;  // NaN fails as well
    for (const std::uint16_t bits : problem.output()) ASSERT_TRUE(std::isfinite(bf16_to_f32(bits))) << c.name;
  }
}

// The same by mla_attention.h, over f32 queries and as near as f32 itself.
TEST_F(MlaTest, RowsInTwoTermsAgreeWithF32) {
  for (const Case& c : cases()) {
    MlaProblem problem({.lengths = c.lengths, .score_deviation = c.score_deviation, .mean = c.mean, .as_rows = true});
    problem.poison_output();
    problem.run(nullptr, 0);
    synchronise();
    const double error = problem.relative_error(c.compared);
    std::printf("rows, %-34s error %.2e\n", c.name, error);
    EXPECT_LE(error, 3e-5) << c.name;  // NaN fails as well
  }
}

TEST_F(MlaTest, NothingToDoIsDone) {
  run(MlaDecode{}, nullptr);
  run(MlaPrepare{}, nullptr);
  run(MlaAttention{}, nullptr);
  run(MlaQueries{}, nullptr);
  run(MlaAppend{}, nullptr);
  synchronise();
}

TEST_F(MlaTest, RunsAreEqualToTheBit) {
  MlaProblem problem({.lengths = ragged(150, 2000), .mean = .5f});
  problem.run(nullptr, 0);
  synchronise();
  const std::vector<std::uint16_t> once = problem.output();
  for (int i = 0; i < 20; ++i) {
    problem.poison_output();
    problem.run(nullptr, 0);
    synchronise();
    ASSERT_EQ(problem.output(), once) << "run " << i;
  }
}

// The bits of a sequence with fixed splits depend neither on its neighbours nor on the number of clusters.
TEST_F(MlaTest, FixedSplitsGiveTheSameBitsInAnyCompany) {
  std::vector<std::int32_t> lengths{5000};
  MlaProblem one({.lengths = lengths, .mean = .5f, .deterministic = true, .clusters = 7});
  one.run(nullptr, 0);
  synchronise();
  const std::vector<std::uint16_t> expected = one.output();
  for (int i = 0; i < 50; ++i) lengths.push_back(100 * i + 1);
  MlaProblem many({.lengths = lengths, .mean = .5f, .deterministic = true});
  many.run(nullptr, 0);
  synchronise();
  std::vector<std::uint16_t> first = many.output();
  first.resize(expected.size());
  EXPECT_EQ(first, expected);
}

// NaN in one sequence's cache stays there.
TEST_F(MlaTest, NanOfOneSequenceDoesNotReachAnother) {
  MlaProblem problem({.lengths = std::vector<std::int32_t>(200, 100), .clusters = 3});
  problem.run(nullptr, 0);
  synchronise();
  const std::vector<std::uint16_t> healthy = problem.output();
  problem.poison_token(7, 70);
  problem.poison_output();
  problem.run(nullptr, 0);
  synchronise();
  const std::vector<std::uint16_t> out = problem.output();
  constexpr std::size_t kSize = MlaPage::kHeads * MlaPage::kLatent;
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (i / kSize == 7)
      ASSERT_TRUE(std::isnan(bf16_to_f32(out[i]))) << i;
    else
      ASSERT_EQ(out[i], healthy[i]) << i;
  }
}

}  // namespace
}  // namespace tandem::cuda
