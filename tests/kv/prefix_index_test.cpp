// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "kv/prefix_index.h"

#include <gtest/gtest.h>

#include <numeric>

namespace tandem {
namespace {

using Parent = PrefixIndex::Parent;

std::vector<std::int32_t> counting(std::int32_t from, std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), from);
  return tokens;
}

BlockTokens block_of(const std::vector<std::int32_t>& tokens, std::size_t index = 0) {
  return std::span(tokens).subspan(index * kBlockTokens).first<kBlockTokens>();
}

std::uint64_t same_for_all(std::uint64_t, BlockTokens) {
  return 7;
}

// Whatever the hash is worth, the tokens decide.
class PrefixIndexTest : public ::testing::TestWithParam<PrefixIndex::Hash> {
 protected:
  PrefixIndex index{8, GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Hashes, PrefixIndexTest, ::testing::Values(&PrefixIndex::content_hash, &same_for_all));

TEST_P(PrefixIndexTest, FindsTheLongestKnownChain) {
  const auto tokens = counting(0, 3 * kBlockTokens);
  index.insert({.salt = 1}, block_of(tokens, 0), 5);
  index.insert({.salt = 1, .block = 5}, block_of(tokens, 1), 2);
  index.check_integrity();
  EXPECT_EQ(index.longest(1, tokens), (std::vector<BlockId>{5, 2}));
  EXPECT_EQ(index.longest(1, std::span(tokens).first(2 * kBlockTokens - 1)), (std::vector<BlockId>{5}));
  EXPECT_TRUE(index.longest(1, std::span(tokens).first(kBlockTokens - 1)).empty());
  EXPECT_TRUE(index.longest(1, {}).empty());
  EXPECT_EQ(index.size(), 2);
}

TEST_P(PrefixIndexTest, ASaltAParentAndEveryTokenCount) {
  auto tokens = counting(0, kBlockTokens);
  index.insert({.salt = 1}, block_of(tokens), 0);
  index.insert({.salt = 2}, block_of(tokens), 1);
  index.insert({.salt = 1, .block = 0}, block_of(tokens), 2);
  EXPECT_EQ(index.find({.salt = 1}, block_of(tokens)), 0);
  EXPECT_EQ(index.find({.salt = 2}, block_of(tokens)), 1);
  EXPECT_EQ(index.find({.salt = 1, .block = 0}, block_of(tokens)), 2);
  EXPECT_EQ(index.find({.salt = 3}, block_of(tokens)), std::nullopt);
  EXPECT_EQ(index.find({.salt = 1, .block = 2}, block_of(tokens)), std::nullopt);
  for (std::int32_t& token : tokens) {
    ++token;
    EXPECT_EQ(index.find({.salt = 1}, block_of(tokens)), std::nullopt);
    --token;
  }
  index.check_integrity();
}

TEST_P(PrefixIndexTest, WhatIsErasedIsNotFound) {
  const auto tokens = counting(0, 2 * kBlockTokens);
  index.insert({}, block_of(tokens, 0), 0);
  index.insert({.block = 0}, block_of(tokens, 1), 1);
  index.erase(1);
  index.check_integrity();
  EXPECT_EQ(index.longest(0, tokens), (std::vector<BlockId>{0}));
  EXPECT_FALSE(index.contains(1));
  index.erase(0);
  index.check_integrity();
  EXPECT_EQ(index.size(), 0);
  index.insert({}, block_of(tokens, 1), 1);  // the block comes back with other content
  EXPECT_EQ(index.find({}, block_of(tokens, 1)), 1);
}

using PrefixIndexDeathTest = ::testing::Test;

TEST(PrefixIndexDeathTest, MisuseStopsTheProgram) {
  const auto tokens = counting(0, 2 * kBlockTokens);
  PrefixIndex index(4);
  index.insert({}, block_of(tokens, 0), 0);
  index.insert({.block = 0}, block_of(tokens, 1), 1);
  EXPECT_DEATH(index.erase(0), "has 1 children");
  EXPECT_DEATH(index.erase(2), "not in the index");
  EXPECT_DEATH(index.insert({}, block_of(tokens, 0), 2), "repeats a prefix");
  EXPECT_DEATH(index.insert({.block = 0}, block_of(tokens, 0), 1), "is in the index");
}

}  // namespace
}  // namespace tandem
