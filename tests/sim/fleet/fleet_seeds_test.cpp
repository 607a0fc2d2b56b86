// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// 350 seeds, 50 for each of seven layouts.
#include <gtest/gtest.h>

#include "base/format.h"
#include "sim/fleet/fleet.h"

namespace tandem {
namespace {

struct Case {
  const char* model;
  std::int32_t attention, ffn, replicas = 0;
};

class FleetSeeds : public testing::TestWithParam<Case> {};

TEST_P(FleetSeeds, NoneFails) {
  constexpr std::uint64_t kSeeds = 50;
  const Case& c = GetParam();
  const FleetModel model = FleetModel::load(format("tests/goldens/{}", c.model), c.attention, c.ffn, c.replicas);
  FleetFaults faults;
  std::int64_t answers = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const FleetRun run = simulate_fleet(model, seed);
    ASSERT_EQ(run.failure, "") << "seed " << seed << "\n" << join(run.log, "\n");
    faults += run.faults;
    answers += run.answers;
  }
  EXPECT_GT(answers, static_cast<std::int64_t>(10 * kSeeds));
  // That it was a trial.
  EXPECT_GT(faults.kills, 0);
  EXPECT_GT(faults.silent_kills, 0);
  EXPECT_GT(faults.front_kills, 0);
  EXPECT_GT(faults.pauses, 0);
  EXPECT_GT(faults.cuts, 0);
  EXPECT_GT(faults.network.lost, 0);
  EXPECT_GT(faults.network.delayed, 0);
  EXPECT_GT(faults.network.repeated, 0);
  EXPECT_GT(faults.network.damaged, 0);
  EXPECT_GT(faults.network.stale, 0);
  EXPECT_EQ(faults.moved_requests > 0, c.attention > 1);
  EXPECT_EQ(faults.moved_pages > 0, c.attention > 1);
}

INSTANTIATE_TEST_SUITE_P(Layouts, FleetSeeds,
                         testing::Values(Case{"qwen3_moe", 1, 1}, Case{"qwen3_moe", 2, 2}, Case{"qwen3_moe", 3, 2},
                                         Case{"qwen3_moe", 1, 3}, Case{"llama", 2, 1}, Case{"deepseek_v3", 2, 2},
                                         Case{"qwen3_moe", 2, 2, 1}),
                         [](const auto& test) {
                           const Case& c = test.param;
                           return format("{}_{}A{}F{}R", c.model, c.attention, c.ffn, c.replicas);
                         });

}  // namespace
}  // namespace tandem
