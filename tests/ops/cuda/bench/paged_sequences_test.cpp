// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bench/paged_sequences.h"

#include <gtest/gtest.h>

#include <set>

namespace tandem::cuda {
namespace {

TEST(PagedSequences, EveryTokenOfEveryCopyHasASlotOfItsOwn) {
  const PagedSequences s = paged_sequences({1, 64, 65, 200}, 3, 7);
  EXPECT_EQ(s.blocks, 1 + 1 + 2 + 4);
  EXPECT_EQ(s.blocks_max, 4);
  EXPECT_EQ(s.pool_blocks(), 24u);
  const std::vector<std::int32_t> slots = s.slots();
  EXPECT_EQ(slots.size(), 3u * (1 + 64 + 65 + 200));
  EXPECT_EQ(std::set<std::int32_t>(slots.begin(), slots.end()).size(), slots.size());
  for (const std::int32_t slot : slots) {
    EXPECT_GE(slot, 0);
    EXPECT_LT(slot, 24 * 64);
  }
}

TEST(PagedSequences, TheBlockOfATokenIsThatOfItsTable) {
  const PagedSequences s = paged_sequences({130, 70}, 1, 1);
  const std::vector<std::int32_t> slots = s.slots();
  for (std::int32_t t = 0; t < 70; ++t)
    EXPECT_EQ(slots[static_cast<std::size_t>(130 + t)], s.block(1, t / 64) * 64 + t % 64);
}

}  // namespace
}  // namespace tandem::cuda
