// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/rng.h"
#include "ops/cuda/gemm/bf16_gemm.h"

namespace tandem::cuda {
namespace {

std::vector<std::int32_t> bounds_of(const KParts& parts) {
  return {parts.bounds, parts.bounds + parts.count + 1};
}

TEST(Bf16GemmPlan, PartsCoverKInOrder) {
  for (const std::int64_t k : {1, 32, 100, 2047, 2048, 7168, 29000})
    for (const KSlices& slices : {KSlices::whole(k), width_slices(k, 32, 0, 8)}) {
      const std::vector<std::int32_t> bounds = bounds_of(parts_of(slices));
      EXPECT_EQ(bounds.front(), 0);
      EXPECT_EQ(bounds.back(), (k + KParts::kUnit - 1) / KParts::kUnit) << k;
      EXPECT_TRUE(std::ranges::is_sorted(bounds)) << k;
    }
}

TEST(Bf16GemmPlan, LongSlicesAreCutInFour) {
  EXPECT_EQ(parts_of(KSlices::whole(2047)).count, 1);
  EXPECT_EQ(bounds_of(parts_of(KSlices::whole(2048))), (std::vector<std::int32_t>{0, 16, 32, 48, 64}));
  EXPECT_EQ(parts_of(width_slices(14336, 32, 0, 8)).count, 8);
  EXPECT_EQ(parts_of(width_slices(28672, 32, 0, 8)).count, 32);
}

// Leaves that are not empty are the same; those of a slice stand together, so the tree is too.
TEST(Bf16GemmPlan, AShareOfTheSlicesHasTheirParts) {
  for (const std::int64_t width : {96, 768, 2000, 16500, 28672}) {
    const auto leaves = [&](int first, int count) {
      std::vector<std::pair<std::int32_t, std::int32_t>> leaves;
      const auto origin = static_cast<std::int32_t>(width_slice_begin(width, 32, first)) / KParts::kUnit;
      const std::vector<std::int32_t> bounds = bounds_of(parts_of(width_slices(width, 32, first, count)));
      for (std::size_t i = 0; i + 1 < bounds.size(); ++i)
        if (bounds[i] < bounds[i + 1]) leaves.emplace_back(origin + bounds[i], origin + bounds[i + 1]);
      return leaves;
    };
    for (const int count : {1, 2, 4}) {
      std::vector<std::pair<std::int32_t, std::int32_t>> shares;
      for (int first = 0; first < 8; first += count)
        std::ranges::copy(leaves(first, count), std::back_inserter(shares));
      EXPECT_EQ(shares, leaves(0, 8)) << width << ", " << count << " slices each";
    }
  }
}

TEST(Bf16GemmPlan, SlicesInTheMiddleOfAUnitHaveNoParts) {
  EXPECT_TRUE(has_parts(KSlices::whole(100)));
  EXPECT_FALSE(has_parts({4, {0, 1, 1, 50, 100}}));
}

TEST(Bf16GemmPlan, TilesOfRowsAreEnoughForWhateverExpertsHave) {
  Rng rng(3);
  for (int round = 0; round < 2000; ++round) {
    const int experts = 1 + static_cast<int>(rng.below(40));
    std::int64_t rows = 0, tiles[3] = {};
    for (int e = 0; e < experts; ++e) {
      const auto count = static_cast<std::int64_t>(rng.below(4) == 0 ? rng.below(200) : rng.below(3));
      for (int i = 0; i < 3 && count > 0; ++i) {
        const std::int64_t tile = 16 << i;
        tiles[i] += (rows + count - rows / 8 * 8 + tile - 1) / tile;
      }
      rows += count;
    }
    for (int i = 0; i < 3; ++i) EXPECT_LE(tiles[i], bf16_row_tiles(rows, experts, 16 << i)) << rows << " rows";
  }
}

TEST(Bf16GemmPlan, TilesFitTheRows) {
  EXPECT_EQ(bf16_tile_rows(1, false), 8);
  EXPECT_EQ(bf16_tile_rows(9, false), 16);
  EXPECT_EQ(bf16_tile_rows(500, false), 64);
  EXPECT_EQ(bf16_tile_rows(1, true), 16);
  EXPECT_EQ(bf16_tile_rows(10, true), 32);
}

TEST(Bf16GemmPlan, ABlockHasFourPartsAtMostAndAClusterEightBlocks) {
  for (const int parts : {1, 2, 4, 8, 16, 32})
    for (const std::int64_t tiles : {1, 32, 100, 5000}) {
      const int split = bf16_split(parts, tiles);
      EXPECT_EQ(parts % split, 0);
      EXPECT_LE(parts / split, 4);
      EXPECT_LE(split, 8);
    }
}

}  // namespace
}  // namespace tandem::cuda
