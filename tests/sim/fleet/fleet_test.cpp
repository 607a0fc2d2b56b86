// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sim/fleet/fleet.h"

#include <gtest/gtest.h>

#include "base/format.h"
#include "sim/fleet/fleet_model.h"

namespace tandem {
namespace {

TEST(Fleet, LosesDoublesAndAltersNoToken) {
  const FleetModel model = FleetModel::load("tests/goldens/qwen3_moe", 2, 2);
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const FleetRun run = simulate_fleet(model, seed);
    EXPECT_EQ(run.failure, "") << "seed " << seed << "\n" << join(run.log, "\n");
    EXPECT_GT(run.answers, 0);
    EXPECT_GT(run.epochs, 0);
  }
}

TEST(Fleet, ASeedHappensAgainAlike) {
  const FleetModel model = FleetModel::load("tests/goldens/qwen3_moe", 2, 1);
  const FleetRun first = simulate_fleet(model, 5), again = simulate_fleet(model, 5), other = simulate_fleet(model, 6);
  EXPECT_EQ(first.log, again.log);
  EXPECT_EQ(first.events, again.events);
  EXPECT_EQ(first.faults.network.messages, again.faults.network.messages);
  EXPECT_NE(first.log, other.log);
}

}  // namespace
}  // namespace tandem
