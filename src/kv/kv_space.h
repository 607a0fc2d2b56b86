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
//
// Windowed layers see the last window_tokens positions only. They have a pool of smaller blocks of their own: each
// block of a table has one beside it, as long as a later position can still see into it (pass_window gives the others
// back). A published block keeps its neighbour while nobody needs that one's room; a prefix is found only as far as the
// next position would find its whole window.
//
// Invariants: whoever holds a window block holds the block beside it, and two tables that share one share the other.
// Hence there are never more window blocks held than blocks, and window_blocks_enough() of them never run out.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/block_pool.h"
#include "kv/prefix_index.h"

namespace tandem {

inline constexpr BlockId kNoBlock = -1;

// The blocks of one sequence, in order; tokens counts the positions they have room for and that are in use.
struct BlockTable {
  std::vector<BlockId> blocks;
  std::vector<BlockId> window_blocks;  // beside blocks, if there are windowed layers; kNoBlock before window_begin
  std::int64_t window_begin = 0;
  std::int64_t tokens = 0;     // positions in use: [0, tokens)
  std::int64_t published = 0;  // leading blocks that the index knows under this sequence's chain
};

// Handed out: to be zeroed before use.
struct FreshBlocks {
  std::vector<BlockId> blocks, window_blocks;
};

class KvSpace {
 public:
  struct Config {
    std::int64_t blocks = 0;
    bool prefix_cache = true;
    std::int64_t window_tokens = 0;  // that windowed layers see, the row's own included; 0: there are none
    std::int64_t window_blocks = 0;
  };
  explicit KvSpace(const Config& config);
  Config config() const { return {pool_.blocks(), prefix_cache_, window_tokens_, window_pool_.blocks()}; }

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
  // Makes room for positions [table.tokens, table.tokens + count). Appends the blocks handed out to fresh. False,
  // changing nothing, when the pools cannot give enough.
  [[nodiscard]] bool grow(BlockTable& table, std::int64_t count, FreshBlocks& fresh);
  // Gives back the window blocks that position computed and later ones do not see. Everything before it must be
  // settled: the table cannot be cut shorter afterwards, only released.
  void pass_window(BlockTable& table, std::int64_t computed);
  // Gives back all window blocks: what belongs into them is not known (pages that came without it).
  void drop_window(BlockTable& table);
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
    std::int64_t window_blocks = 0, window_held = 0;
    std::int64_t lookup_tokens = 0, hit_tokens = 0;  // since the start
  };
  Usage usage() const;
  // The blocks that grow would need for count more tokens.
  static std::int64_t blocks_needed(const BlockTable& table, std::int64_t count);
  std::int64_t available() const;
  // So many window blocks are enough for sequences that share a step of rows rows, one more that comes as pages
  // included; and for one row more of each, planned ahead.
  static std::int64_t window_blocks_enough(std::int64_t window_tokens, std::int64_t sequences, std::int64_t rows);
  void check_integrity() const;
  // The same, and that tables, which must be all there are, account for every reference.
  void check_integrity(std::span<const BlockTable* const> tables) const;

 private:
  std::vector<BlockId> find_chain(std::uint64_t salt, std::span<const std::int32_t> tokens, std::int64_t limit) const;

  std::int64_t first_seen_block(std::int64_t position) const;
  bool has_window_of(std::span<const BlockId> chain) const;
  void release_window_block(BlockTable& table, std::int64_t i);
  void take_block(BlockTable& table, FreshBlocks& fresh);
  void take_window_block(BlockTable& table, FreshBlocks& fresh);
  void publish_window_block(BlockTable& table, std::int64_t i);
  void check_window_integrity() const;
  void check_window_integrity(std::span<const BlockTable* const> tables) const;

  bool prefix_cache_;
  std::int64_t window_tokens_;
  BlockPool pool_, window_pool_;
  PrefixIndex index_;
  std::vector<BlockId> beside_;  // by published block: its window block, or kNoBlock
  std::vector<BlockId> owner_;   // by window block: the published block it is beside, or kNoBlock
  std::int64_t lookup_tokens_ = 0;
  std::int64_t hit_tokens_ = 0;
};

}  // namespace tandem
