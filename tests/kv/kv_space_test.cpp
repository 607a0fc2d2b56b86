// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "kv/kv_space.h"

#include <gtest/gtest.h>

#include <numeric>

namespace tandem {
namespace {

std::vector<std::int32_t> counting(std::int32_t from, std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), from);
  return tokens;
}

// A table whose tokens are all computed and published.
BlockTable computed(KvSpace& kv, std::span<const std::int32_t> tokens, std::uint64_t salt = 0) {
  BlockTable table;
  FreshBlocks fresh;
  EXPECT_TRUE(kv.grow(table, std::ssize(tokens), fresh));
  kv.publish(table, salt, tokens, std::ssize(tokens));
  return table;
}

TEST(KvSpace, GrowsByWholeBlocksOrNotAtAll) {
  KvSpace kv({.blocks = 3});
  BlockTable table;
  FreshBlocks fresh;
  ASSERT_TRUE(kv.grow(table, 1, fresh));
  EXPECT_EQ(fresh.blocks.size(), 1u);
  ASSERT_TRUE(kv.grow(table, kBlockTokens - 1, fresh));
  EXPECT_EQ(fresh.blocks.size(), 1u);
  ASSERT_TRUE(kv.grow(table, 1, fresh));
  EXPECT_EQ(fresh.blocks, table.blocks);
  EXPECT_EQ(table.tokens, kBlockTokens + 1);
  EXPECT_EQ(KvSpace::blocks_needed(table, 2 * kBlockTokens), 2);
  EXPECT_FALSE(kv.grow(table, 2 * kBlockTokens, fresh));
  EXPECT_EQ(fresh.blocks.size(), 2u);
  EXPECT_EQ(table.tokens, kBlockTokens + 1);
  ASSERT_TRUE(kv.grow(table, 0, fresh));
  const BlockTable* tables[] = {&table};
  kv.check_integrity(tables);
}

TEST(KvSpace, TruncateGivesWholeBlocksBack) {
  KvSpace kv({.blocks = 3});
  BlockTable table;
  FreshBlocks fresh;
  ASSERT_TRUE(kv.grow(table, 3 * kBlockTokens, fresh));
  kv.truncate(table, kBlockTokens + 1);
  EXPECT_EQ(table.blocks.size(), 2u);
  EXPECT_EQ(kv.available(), 1);
  kv.truncate(table, kBlockTokens);
  EXPECT_EQ(table.blocks.size(), 1u);
  kv.truncate(table, 0);
  EXPECT_EQ(kv.available(), 3);
  EXPECT_EQ(kv.usage().cached, 0);
}

TEST(KvSpace, APrefixIsFoundInWholeBlocksUpToTheLimit) {
  KvSpace kv({.blocks = 8});
  const auto tokens = counting(0, 2 * kBlockTokens + 10);
  BlockTable first = computed(kv, tokens);
  EXPECT_EQ(first.published, 2);

  BlockTable second;
  EXPECT_EQ(kv.attach_prefix(second, 0, tokens, 2 * kBlockTokens), 2 * kBlockTokens);
  EXPECT_EQ(second.blocks[1], first.blocks[1]);
  BlockTable third;
  EXPECT_EQ(kv.attach_prefix(third, 0, tokens, 2 * kBlockTokens - 1), kBlockTokens);
  BlockTable salted;
  EXPECT_EQ(kv.attach_prefix(salted, 9, tokens, std::ssize(tokens)), 0);
  const BlockTable* tables[] = {&first, &second, &third, &salted};
  kv.check_integrity(tables);
  EXPECT_EQ(kv.usage().hit_tokens, 3 * kBlockTokens);
  EXPECT_EQ(kv.usage().lookup_tokens, 3 * std::ssize(tokens));
}

TEST(KvSpace, BlocksStayCachedAfterReleaseAndAreEvictedFromTheEndOfTheChain) {
  KvSpace kv({.blocks = 3});
  const auto tokens = counting(0, 3 * kBlockTokens);
  BlockTable table = computed(kv, tokens);
  kv.release(table);
  EXPECT_TRUE(table.blocks.empty());
  EXPECT_EQ(kv.usage().cached, 3);
  EXPECT_EQ(kv.match_prefix(0, tokens, std::ssize(tokens)).cached_blocks, 3);

  FreshBlocks fresh;
  BlockTable other;
  ASSERT_TRUE(kv.grow(other, 1, fresh));  // takes the chain's last block
  EXPECT_EQ(kv.match_prefix(0, tokens, std::ssize(tokens)).tokens, 2 * kBlockTokens);
  kv.check_integrity();
}

TEST(KvSpace, WhatIsNotPublishedIsNotKept) {
  KvSpace kv({.blocks = 4});
  const auto tokens = counting(0, 2 * kBlockTokens);
  BlockTable table;
  FreshBlocks fresh;
  ASSERT_TRUE(kv.grow(table, 2 * kBlockTokens, fresh));
  kv.publish(table, 0, tokens, 2 * kBlockTokens - 1);  // the second block is not complete
  EXPECT_EQ(table.published, 1);
  kv.release(table);
  EXPECT_EQ(kv.usage().cached, 1);
  EXPECT_EQ(kv.match_prefix(0, tokens, std::ssize(tokens)).tokens, kBlockTokens);
}

TEST(KvSpace, TwoTablesThatComputeTheSameEndUpWithTheSameBlocks) {
  KvSpace kv({.blocks = 8});
  const auto tokens = counting(0, 2 * kBlockTokens + 1);
  BlockTable first, second;
  FreshBlocks fresh;
  ASSERT_TRUE(kv.grow(first, std::ssize(tokens), fresh));
  ASSERT_TRUE(kv.grow(second, std::ssize(tokens), fresh));
  kv.publish(first, 0, tokens, kBlockTokens);
  kv.publish(second, 0, tokens, std::ssize(tokens));
  kv.publish(first, 0, tokens, std::ssize(tokens));
  EXPECT_EQ(first.blocks[0], second.blocks[0]);
  EXPECT_EQ(first.blocks[1], second.blocks[1]);
  EXPECT_NE(first.blocks[2], second.blocks[2]);
  EXPECT_EQ(kv.usage().held, 4);
  const BlockTable* tables[] = {&first, &second};
  kv.check_integrity(tables);
}

TEST(KvSpace, WithoutPrefixCacheNothingIsFound) {
  KvSpace kv({.blocks = 2, .prefix_cache = false});
  const auto tokens = counting(0, kBlockTokens + 1);
  BlockTable table = computed(kv, tokens);
  BlockTable other;
  EXPECT_EQ(kv.attach_prefix(other, 0, tokens, std::ssize(tokens)), 0);
  kv.release(table);
  EXPECT_EQ(kv.usage().cached, 0);
}

KvSpace windowed(std::int64_t window_blocks) {
  return KvSpace({.blocks = 40, .window_tokens = 100, .window_blocks = window_blocks});
}

TEST(KvSpace, AWindowHoldsWhatTheNextPositionSeesAndNoMore) {
  KvSpace kv = windowed(6);
  const std::vector<std::int32_t> tokens(30 * kBlockTokens, 7);
  BlockTable table;
  FreshBlocks fresh;
  for (std::int64_t position = 0; position < std::ssize(tokens); ++position) {
    ASSERT_TRUE(kv.grow(table, 1, fresh)) << position;
    kv.publish(table, 0, tokens, position + 1);
    kv.pass_window(table, table.tokens);
    EXPECT_LE(kv.usage().window_held, 3);  // 99 positions before the next one
    kv.check_integrity(std::vector<const BlockTable*>{&table});
  }
  EXPECT_EQ(kv.usage().held, 30);
  EXPECT_EQ(kv.usage().window_held, 2);
  EXPECT_EQ(fresh.window_blocks.size(), fresh.blocks.size());
  kv.release(table);
  EXPECT_EQ(kv.usage().window_held, 0);
}

TEST(KvSpace, APrefixIsFoundAsFarAsItsWindowIsThere) {
  KvSpace kv = windowed(6);
  const std::vector<std::int32_t> tokens(10 * kBlockTokens, 7);
  BlockTable table;
  FreshBlocks fresh;
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(kv.grow(table, kBlockTokens, fresh));
    kv.publish(table, 0, tokens, table.tokens);
    kv.pass_window(table, table.tokens);
  }
  kv.release(table);  // six window blocks are left, the last ones
  EXPECT_EQ(kv.match_prefix(0, tokens, 10 * kBlockTokens).tokens, 10 * kBlockTokens);
  EXPECT_EQ(kv.match_prefix(0, tokens, 6 * kBlockTokens).tokens, 6 * kBlockTokens);
  EXPECT_EQ(kv.match_prefix(0, tokens, 5 * kBlockTokens).tokens, 0) << "block 3 is gone";
  BlockTable other;
  ASSERT_EQ(kv.attach_prefix(other, 0, tokens, 10 * kBlockTokens), 10 * kBlockTokens);
  EXPECT_EQ(other.window_begin, 8);
  EXPECT_EQ(kv.usage().window_held, 2);
  // Whoever computes the beginning again puts its windows back.
  BlockTable again;
  ASSERT_TRUE(kv.grow(again, 2 * kBlockTokens, fresh));
  kv.publish(again, 0, tokens, 2 * kBlockTokens);
  EXPECT_EQ(again.blocks[0], other.blocks[0]);
  EXPECT_EQ(kv.match_prefix(0, tokens, 2 * kBlockTokens).tokens, 2 * kBlockTokens);
  kv.check_integrity(std::vector<const BlockTable*>{&other, &again});
  kv.release(other);
  kv.release(again);
  kv.check_integrity(std::vector<const BlockTable*>{});
}

TEST(KvSpace, AnEvictedBlockTakesTheWindowBlockBesideItAlong) {
  KvSpace kv({.blocks = 2, .window_tokens = 100, .window_blocks = 2});
  const std::vector<std::int32_t> tokens(2 * kBlockTokens, 7);
  BlockTable table = computed(kv, tokens);
  kv.release(table);
  FreshBlocks fresh;
  ASSERT_TRUE(kv.grow(table, 2 * kBlockTokens, fresh));
  EXPECT_EQ(kv.usage().cached, 0);
  EXPECT_EQ(kv.usage().window_held, 2);
  kv.check_integrity(std::vector<const BlockTable*>{&table});
}

using KvSpaceDeathTest = ::testing::Test;

TEST(KvSpaceDeathTest, MisuseStopsTheProgram) {
  KvSpace kv({.blocks = 4});
  const auto tokens = counting(0, kBlockTokens);
  BlockTable table = computed(kv, tokens);
  EXPECT_DEATH(kv.truncate(table, kBlockTokens - 1), "in a published block");
  EXPECT_DEATH(kv.truncate(table, kBlockTokens + 1), "truncate 64 tokens to 65");
  EXPECT_DEATH(kv.publish(table, 0, tokens, kBlockTokens + 1), "publish 65 of 64");
  EXPECT_DEATH(kv.attach_prefix(table, 0, tokens, 1), "empty table");
  EXPECT_DEATH(kv.check_integrity(std::span<const BlockTable* const>()), "1 references, tables hold 0");
}

}  // namespace
}  // namespace tandem
