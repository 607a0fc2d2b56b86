// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Which block holds the keys and values of which tokens. An entry is a full block, found by (salt, parent block, its
// tokens), so that the entries form one tree per salt and a path from a root spells a prefix.
//
// It counts no references and frees nothing: KvSpace keeps it and the pool in step. One thread.
// Invariants: a block has at most one entry; two entries never spell the same prefix; a parent outlives its children.
// The idea of a tree of fixed-size blocks under a chained hash is common in the field; here the hash only narrows the
// search, and the tokens decide.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "kv/block_pool.h"
#include "ops/kv_cache.h"

namespace tandem {

using BlockTokens = std::span<const std::int32_t, kBlockTokens>;

class PrefixIndex {
 public:
  // Where a block hangs: below another one, or at the root of a salt.
  struct Parent {
    std::uint64_t salt = 0;
    std::optional<BlockId> block;
    bool operator==(const Parent&) const = default;
  };
  // Of a parent's hash (at a root: of its salt) and a block's tokens. Tests hand in a poor one.
  using Hash = std::uint64_t (*)(std::uint64_t parent, BlockTokens tokens);
  static std::uint64_t content_hash(std::uint64_t parent, BlockTokens tokens);

  explicit PrefixIndex(std::int64_t blocks, Hash hash = content_hash);

  std::optional<BlockId> find(const Parent& parent, BlockTokens tokens) const;
  void insert(const Parent& parent, BlockTokens tokens, BlockId block);
  void erase(BlockId block);  // of an entry without children
  bool contains(BlockId block) const;
  std::int64_t size() const { return static_cast<std::int64_t>(by_hash_.size()); }
  // The blocks of the longest known chain that spells the start of tokens, whole blocks only.
  std::vector<BlockId> longest(std::uint64_t salt, std::span<const std::int32_t> tokens) const;
  // Stops the program when a link, count or hash contradicts another.
  void check_integrity() const;

 private:
  struct Entry {
    bool present = false;
    Parent parent;
    std::uint64_t hash = 0;
    std::int32_t children = 0;
    std::array<std::int32_t, kBlockTokens> tokens{};
  };
  const Entry& entry(BlockId block) const { return entries_[static_cast<std::size_t>(block)]; }
  Entry& entry(BlockId block) { return entries_[static_cast<std::size_t>(block)]; }
  std::uint64_t hash_of(const Parent& parent, BlockTokens tokens) const;

  Hash hash_;
  std::vector<Entry> entries_;                               // by block
  std::unordered_multimap<std::uint64_t, BlockId> by_hash_;  // at most one of equal hashes matches in full
};

}  // namespace tandem
