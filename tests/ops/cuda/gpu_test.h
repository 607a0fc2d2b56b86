// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What tests of kernels share: they skip with a reason where there is no GPU, and like their sequences ragged.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "ops/cuda/device.h"

namespace tandem::cuda {

class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string missing = why_unusable(look_at_device());
    if (!missing.empty()) GTEST_SKIP() << missing;
  }
};

// So many lengths from 1 to longest.
inline std::vector<std::int32_t> ragged(std::size_t count, std::int32_t longest) {
  std::mt19937 random(3);
  std::vector<std::int32_t> lengths;
  for (std::size_t i = 0; i < count; ++i)
    lengths.push_back(1 + static_cast<std::int32_t>(random() % static_cast<unsigned>(longest)));
  return lengths;
}

}  // namespace tandem::cuda
