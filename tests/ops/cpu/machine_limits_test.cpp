// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/machine_limits.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

// Any machine that builds this reads more than 0.1 GB/s and does more than 0.1 GFLOP/s, and fewer than a million.
TEST(MachineLimits, AreOfAPlausibleSize) {
  const MachineLimits limits = measure_machine_limits({1, "auto"});
  EXPECT_GT(limits.read_bytes_per_second, 1e8);
  EXPECT_LT(limits.read_bytes_per_second, 1e15);
  EXPECT_GT(limits.flops_per_second, 1e8);
  EXPECT_LT(limits.flops_per_second, 1e15);
}

}  // namespace
}  // namespace tandem
