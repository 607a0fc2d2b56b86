// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/rng.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

namespace tandem {
namespace {

TEST(Rng, is_the_published_sequence) {
  // The first outputs of SplitMix64 for seed 0, as its authors' code prints them.
  Rng rng(0);
  EXPECT_EQ(rng.next(), 0xe220a8397b1dcdafull);
  EXPECT_EQ(rng.next(), 0x6e789e6aa1b965f4ull);
  EXPECT_EQ(rng.next(), 0x06c45d188009454full);
}

TEST(Rng, below_is_even) {
  Rng rng(1);
  std::array<int, 7> counts{};
  for (int i = 0; i < 70000; ++i) {
    const std::uint64_t value = rng.below(counts.size());
    ASSERT_LT(value, counts.size());
    ++counts[value];
  }
  for (const int count : counts) EXPECT_NEAR(count, 10000, 500);
}

TEST(Rng, normal_has_mean_zero_and_deviation_one) {
  Rng rng(2);
  double sum = 0, squares = 0;
  for (int i = 0; i < 20000; ++i) {
    const double value = rng.normal();
    sum += value;
    squares += value * value;
  }
  EXPECT_NEAR(sum / 20000, 0, 0.03);
  EXPECT_NEAR(std::sqrt(squares / 20000), 1, 0.03);
}

TEST(RandomAt, depends_on_seed_and_position_only) {
  EXPECT_EQ(random_at(7, 3), random_at(7, 3));
  EXPECT_NE(random_at(7, 3), random_at(7, 4));
  EXPECT_NE(random_at(7, 3), random_at(8, 3));
  EXPECT_NE(random_at(7, 4), random_at(8, 3)) << "a seed is not a shift of the positions";
  double sum = 0;
  for (std::uint64_t position = 0; position < 10000; ++position) {
    const double value = random_at(42, position);
    ASSERT_GE(value, 0);
    ASSERT_LT(value, 1);
    sum += value;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.02);
}

}  // namespace
}  // namespace tandem
