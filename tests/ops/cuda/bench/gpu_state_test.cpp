// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bench/gpu_state.h"

#include <gtest/gtest.h>

#include "ops/cuda/device.h"

namespace tandem::cuda {
namespace {

TEST(GpuState, IsNothingWithoutAGpuAndElseWithinReason) {
  const GpuState state = read_gpu_state();
  if (!why_unusable(look_at_device()).empty()) {
    EXPECT_EQ(state.clock_mhz, 0);
    EXPECT_EQ(state.watts, 0);
    return;
  }
  EXPECT_GE(state.clock_mhz, 0);
  EXPECT_LT(state.clock_mhz, 5000);
  EXPECT_GE(state.watts, 0);
  EXPECT_LT(state.watts, 5000);
}

}  // namespace
}  // namespace tandem::cuda
