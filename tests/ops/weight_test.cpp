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

// Four values in rows of two, and a scale for each half of 256 rows; the part begins with row 127.
TEST(ReadRow, BlockScalesBelongToRowsOfTheFile) {
  std::vector<std::byte> codes(256 * 2, std::byte{0x38});  // 1
  WeightPart part{codes.data() + 127 * 2, DType::kF8E4M3, 3, 2, {2, 0, 1}, {{3, 5}, 127, 1}};
  const float expected[] = {5, 3, 5};  // file rows 129, 127, 128
  for (std::int64_t i = 0; i < 3; ++i) {
    float values[2];
    read_row(part, i, 2, values);
    EXPECT_EQ(values[0], expected[i]);
    EXPECT_EQ(values[1], expected[i]);
  }
}

TEST(ReadRow, BlockScalesChangeWithTheColumn) {
  const std::vector<std::byte> codes(200, std::byte{0x40});  // 2
  const WeightPart part{codes.data(), DType::kF8E4M3, 1, 200, {}, {{3, 5}, 0, 2}};
  float values[200];
  read_row(part, 0, 200, values);
  EXPECT_EQ(values[127], 6);
  EXPECT_EQ(values[128], 10);
}

TEST(WidthSlicesDeathTest, MustBeAWholeSubtree) {
  EXPECT_DEATH(width_slices(352, 32, 2, 4), "subtree");
  EXPECT_DEATH(width_slices(352, 32, 6, 4), "outside");
}

}  // namespace
}  // namespace tandem
