// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "kv/block_pool.h"

#include <gtest/gtest.h>

#include <set>

namespace tandem {
namespace {

TEST(BlockPool, HandsOutEveryBlockOnceAndThenNothing) {
  BlockPool pool(3);
  std::set<BlockId> blocks;
  for (int i = 0; i < 3; ++i) {
    const auto handout = pool.take();
    ASSERT_TRUE(handout);
    EXPECT_FALSE(handout->evicted);
    blocks.insert(handout->block);
    pool.check_integrity();
  }
  EXPECT_EQ(blocks, (std::set<BlockId>{0, 1, 2}));
  EXPECT_FALSE(pool.take());
  EXPECT_EQ(pool.held(), 3);
  EXPECT_EQ(pool.available(), 0);
}

TEST(BlockPool, OfNoBlocksGivesNothing) {
  BlockPool pool(0);
  EXPECT_FALSE(pool.take());
  pool.check_integrity();
}

TEST(BlockPool, ABlockIsHeldUntilItsLastReference) {
  BlockPool pool(1);
  const BlockId block = pool.take()->block;
  pool.retain(block);
  EXPECT_EQ(pool.references(block), 2);
  pool.release(block, false);
  EXPECT_FALSE(pool.take());
  pool.release(block, false);
  EXPECT_EQ(pool.available(), 1);
  EXPECT_EQ(pool.cached(), 0);
  EXPECT_EQ(pool.take()->block, block);
}

TEST(BlockPool, TakesFreeBlocksFirstAndThenThoseReleasedLongestAgo) {
  BlockPool pool(4);
  for (int i = 0; i < 4; ++i) (void)pool.take();
  pool.release(2, true);
  pool.release(0, true);
  pool.release(3, false);
  pool.release(1, true);
  pool.retain(2);  // back into use, and then released last
  pool.release(2, true);
  pool.check_integrity();
  EXPECT_EQ(pool.cached(), 3);
  EXPECT_TRUE(pool.is_cached(0));

  const auto first = pool.take();
  EXPECT_EQ(first->block, 3);
  EXPECT_FALSE(first->evicted);
  for (BlockId expected : {0, 1, 2}) {
    const auto next = pool.take();
    EXPECT_EQ(next->block, expected);
    EXPECT_TRUE(next->evicted);
    EXPECT_EQ(pool.references(expected), 1);
  }
  pool.check_integrity();
}

using BlockPoolDeathTest = ::testing::Test;

TEST(BlockPoolDeathTest, MisuseStopsTheProgram) {
  BlockPool pool(2);
  const BlockId block = pool.take()->block;
  pool.release(block, false);
  EXPECT_DEATH(pool.release(block, false), "is not held");
  EXPECT_DEATH(pool.retain(block), "is free");
  EXPECT_DEATH(pool.retain(2), "block 2 of 2");
  EXPECT_DEATH(pool.retain(-1), "block -1 of 2");
}

}  // namespace
}  // namespace tandem
