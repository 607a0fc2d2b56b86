// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The token-level view of the cache: block tables of sequences, and the index that lets a new prompt start from blocks
// that an earlier one computed. Owns no memory of KV; ids, token spans and counts in, ids and counts out. One thread.
//
// Prefix index: a full block is found by (salt, parent block, its 64 tokens). Tokens are compared, not only hashed, so
// that a collision can never show one request another's content. A salt separates keys that must not share.
// The index names only blocks whose KV has been computed and committed (publish).
//
// Invariant: the published blocks of a table are a path of the index from its root. Hence whoever holds a block holds
// its parents, tables give back from the end, and the block released longest ago never has children: eviction needs no
// search.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/block_pool.h"
#include "kv/prefix_index.h"

namespace tandem {

// The blocks of one sequence, in order; tokens counts the positions they have room for and that are in use.
struct BlockTable {
  std::vector<BlockId> blocks;
  std::int64_t tokens = 0;     // positions in use: [0, tokens)
  std::int64_t published = 0;  // leading blocks that the index knows under this sequence's chain
};

class KvSpace {
 public:
  struct Config {
    std::int64_t blocks = 0;
    bool prefix_cache = true;
  };
  explicit KvSpace(const Config& config);

  // What attach_prefix would give: tokens covered, and how many of their blocks would leave available().
  struct PrefixMatch {
    std::int64_t tokens = 0;
    std::int64_t cached_blocks = 0;
  };
  PrefixMatch match_prefix(std::uint64_t salt, std::span<const std::int32_t> tokens, std::int64_t limit) const;
  // Fills an empty table with the longest known chain of full blocks of tokens, at most limit tokens of them, and
  // returns how many tokens it covers (a multiple of kBlockTokens). The blocks are retained.
  std::int64_t attach_prefix(BlockTable& table, std::uint64_t salt, std::span<const std::int32_t> tokens,
                             std::int64_t limit);
  // Makes room for positions [table.tokens, table.tokens + count). Appends the blocks handed out to fresh: they must be
  // zeroed before use. False, changing nothing, when the pool cannot give enough.
  [[nodiscard]] bool grow(BlockTable& table, std::int64_t count, std::vector<BlockId>& fresh);
  // Gives back positions [tokens, table.tokens): rejected drafts, an abandoned step. Whole blocks return to the pool.
  // Never cuts a published block in two, since its next position would be written under the eyes of others.
  void truncate(BlockTable& table, std::int64_t tokens);
  // Tells the index that the first computed tokens of the sequence are in the cache. Where the index already has a
  // block of the same prefix, the table takes that one (same tokens, same KV) and gives its own back.
  void publish(BlockTable& table, std::uint64_t salt, std::span<const std::int32_t> tokens, std::int64_t computed);
  // Ends the sequence; published blocks stay cached.
  void release(BlockTable& table);

  struct Usage {
    std::int64_t blocks = 0, held = 0, cached = 0;
    std::int64_t lookup_tokens = 0, hit_tokens = 0;  // since the start
  };
  Usage usage() const;
  // The blocks that grow would need for count more tokens.
  static std::int64_t blocks_needed(const BlockTable& table, std::int64_t count);
  std::int64_t available() const;
  void check_integrity() const;
  // The same, and that tables, which must be all there are, account for every reference.
  void check_integrity(std::span<const BlockTable* const> tables) const;

 private:
  std::vector<BlockId> find_chain(std::uint64_t salt, std::span<const std::int32_t> tokens, std::int64_t limit) const;

  bool prefix_cache_;
  BlockPool pool_;
  PrefixIndex index_;
  std::int64_t lookup_tokens_ = 0;
  std::int64_t hit_tokens_ = 0;
};

}  // namespace tandem
