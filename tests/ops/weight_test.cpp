// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/weight.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

TEST(WidthSlices, CoverTheWidthAtMultiplesOfTheGranule) {
  for (const auto& [width, granule] : {std::pair{1536, 32}, {96, 32}, {100, 1}, {18432, 128}, {32, 32}, {7, 1}}) {
    EXPECT_EQ(width_slice_begin(width, granule, 0), 0);
    EXPECT_EQ(width_slice_begin(width, granule, KSlices::kCountMax), width);
    for (int i = 0; i < KSlices::kCountMax; ++i) {
      const std::int64_t begin = width_slice_begin(width, granule, i), end = width_slice_begin(width, granule, i + 1);
      EXPECT_LE(begin, end);
      EXPECT_LE(end - begin, width / KSlices::kCountMax + granule);
      EXPECT_TRUE(begin % granule == 0);
    }
  }
}

TEST(WidthSlices, OfASubtreeAreRelativeToItsStart) {
  const KSlices whole = width_slices(352, 32, 0, 8), upper = width_slices(352, 32, 4, 4);
  ASSERT_EQ(upper.count, 4);
  for (int i = 0; i <= 4; ++i) EXPECT_EQ(upper.bounds[i], whole.bounds[4 + i] - whole.bounds[4]);
}

TEST(WidthSlicesDeathTest, MustBeAWholeSubtree) {
  EXPECT_DEATH(width_slices(352, 32, 2, 4), "subtree");
  EXPECT_DEATH(width_slices(352, 32, 6, 4), "outside");
}

}  // namespace
}  // namespace tandem
