// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/int8_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"

namespace tandem {
namespace {

struct Rounded {
  explicit Rounded(const std::vector<float>& x) : codes(x.size()), scales(x.size() / kInt8Group) {
    round_row_to_int8(x.data(), static_cast<std::int64_t>(x.size()), codes.data(), scales.data());
  }
  std::vector<std::int8_t> codes;
  std::vector<float> scales;
};

TEST(Int8Rows, AreWithinHalfAStepOfTheirGroup) {
  Rng rng(3);
  std::vector<float> x(5 * kInt8Group);
  float size = 1;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (i % kInt8Group == 0) size *= 10;
    x[i] = size * rng.normal();
  }
  const Rounded rounded(x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float scale = rounded.scales[i / kInt8Group];
    EXPECT_LE(std::abs(static_cast<float>(rounded.codes[i]) * scale - x[i]), 0.501f * scale) << i;
  }
  for (std::size_t g = 0; g < rounded.scales.size(); ++g) {
    const auto [low, high] =
        std::minmax_element(rounded.codes.begin() + static_cast<std::ptrdiff_t>(g) * kInt8Group,
                            rounded.codes.begin() + static_cast<std::ptrdiff_t>(g + 1) * kInt8Group);
    EXPECT_EQ(std::max<int>(-*low, *high), 127) << "the largest of a group has the largest code";
  }
}

TEST(Int8Rows, TiesGoToEvenCodes) {
  std::vector<float> x(kInt8Group);
  x[0] = 127;
  x[1] = 0.5f, x[2] = 1.5f, x[3] = -2.5f, x[4] = -3.5f;
  const Rounded rounded(x);
  EXPECT_EQ(rounded.scales[0], 1.0f);
  EXPECT_EQ(std::vector(rounded.codes.begin(), rounded.codes.begin() + 6),
            (std::vector<std::int8_t>{127, 0, 2, -2, -4, 0}));
}

TEST(Int8Rows, GroupsWithoutASizeHaveCodesOfZero) {
  std::vector<float> x(4 * kInt8Group);
  x[kInt8Group + 5] = 1e-40f;
  x[2 * kInt8Group + 31] = std::numeric_limits<float>::quiet_NaN();
  x[3 * kInt8Group] = 3;
  x[3 * kInt8Group + 1] = -std::numeric_limits<float>::infinity();
  const Rounded rounded(x);
  EXPECT_EQ(rounded.codes, std::vector<std::int8_t>(x.size()));
  EXPECT_GT(rounded.scales[0], 0);
  EXPECT_EQ(rounded.scales[1], rounded.scales[0]);
  EXPECT_TRUE(std::isnan(rounded.scales[2]));
  EXPECT_TRUE(std::isnan(rounded.scales[3]));
}

}  // namespace
}  // namespace tandem
