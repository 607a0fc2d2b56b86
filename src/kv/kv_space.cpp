// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "kv/kv_space.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/format.h"

namespace tandem {

namespace {

std::int64_t blocks_of(std::int64_t tokens) {
  return (tokens + kBlockTokens - 1) / kBlockTokens;
}
std::int64_t size_of(const BlockTable& table) {
  return static_cast<std::int64_t>(table.blocks.size());
}

}  // namespace

KvSpace::KvSpace(const Config& config)
    : prefix_cache_(config.prefix_cache),
      window_tokens_(config.window_tokens),
      pool_(config.blocks),
      window_pool_(config.window_tokens > 0 ? config.window_blocks : 0),
      index_(config.blocks),
      beside_(static_cast<std::size_t>(config.blocks), kNoBlock),
      owner_(static_cast<std::size_t>(window_pool_.blocks()), kNoBlock) {}

std::int64_t KvSpace::window_blocks_enough(std::int64_t window_tokens, std::int64_t sequences, std::int64_t rows) {
  // window - 1 + r positions lie in at most that many blocks and one more, rounded up; r adds up to rows.
  return (sequences + 1) * ((window_tokens + kBlockTokens - 1) / kBlockTokens + 2) + blocks_of(rows) + 1;
}

// The block with the first position that a row at position sees in windowed layers.
std::int64_t KvSpace::first_seen_block(std::int64_t position) const {
  return std::max<std::int64_t>(0, position - window_tokens_ + 1) / kBlockTokens;
}

// Whether the position behind the chain finds its whole window.
bool KvSpace::has_window_of(std::span<const BlockId> chain) const {
  if (window_tokens_ == 0) return true;
  const auto first = static_cast<std::size_t>(first_seen_block(std::ssize(chain) * kBlockTokens));
  return std::all_of(chain.begin() + std::min(first, chain.size()), chain.end(),
                     [&](BlockId block) { return beside_[block] != kNoBlock; });
}

std::vector<BlockId> KvSpace::find_chain(std::uint64_t salt, std::span<const std::int32_t> tokens,
                                         std::int64_t limit) const {
  const auto usable = std::clamp<std::int64_t>(limit, 0, static_cast<std::int64_t>(tokens.size()));
  if (!prefix_cache_) return {};
  std::vector<BlockId> chain = index_.longest(salt, tokens.first(static_cast<std::size_t>(usable)));
  while (!has_window_of(chain)) chain.pop_back();
  return chain;
}

KvSpace::PrefixMatch KvSpace::match_prefix(std::uint64_t salt, std::span<const std::int32_t> tokens,
                                           std::int64_t limit) const {
  const std::vector<BlockId> chain = find_chain(salt, tokens, limit);
  return {.tokens = static_cast<std::int64_t>(chain.size()) * kBlockTokens,
          .cached_blocks = std::ranges::count_if(chain, [&](BlockId block) { return pool_.is_cached(block); })};
}

std::int64_t KvSpace::attach_prefix(BlockTable& table, std::uint64_t salt, std::span<const std::int32_t> tokens,
                                    std::int64_t limit) {
  TANDEM_CHECK(table.blocks.empty() && table.tokens == 0, "a prefix is attached to an empty table");
  table.blocks = find_chain(salt, tokens, limit);
  for (BlockId block : table.blocks) pool_.retain(block);
  table.published = size_of(table);
  table.tokens = table.published * kBlockTokens;
  if (window_tokens_ > 0) {
    table.window_begin = std::min(first_seen_block(table.tokens), table.published);
    table.window_blocks.assign(table.blocks.size(), kNoBlock);
    for (auto i = static_cast<std::size_t>(table.window_begin); i < table.blocks.size(); ++i) {
      table.window_blocks[i] = beside_[table.blocks[i]];
      window_pool_.retain(table.window_blocks[i]);
    }
  }
  lookup_tokens_ += static_cast<std::int64_t>(tokens.size());
  hit_tokens_ += table.tokens;
  return table.tokens;
}

bool KvSpace::grow(BlockTable& table, std::int64_t count, FreshBlocks& fresh) {
  const std::int64_t needed = blocks_needed(table, count);
  if (needed > pool_.available() || (window_tokens_ > 0 && needed > window_pool_.available())) return false;
  for (std::int64_t i = 0; i < needed; ++i) {
    take_block(table, fresh);
    if (window_tokens_ > 0) take_window_block(table, fresh);
  }
  table.tokens += count;
  return true;
}

void KvSpace::take_block(BlockTable& table, FreshBlocks& fresh) {
  const auto [block, evicted] = *pool_.take();
  if (evicted) {
    index_.erase(block);
    if (const BlockId beside = std::exchange(beside_[block], kNoBlock); beside != kNoBlock) {
      owner_[beside] = kNoBlock;
      window_pool_.forget(beside);
    }
  }
  table.blocks.push_back(block);
  fresh.blocks.push_back(block);
}

void KvSpace::take_window_block(BlockTable& table, FreshBlocks& fresh) {
  const auto [block, evicted] = *window_pool_.take();
  if (evicted) beside_[std::exchange(owner_[block], kNoBlock)] = kNoBlock;
  table.window_blocks.push_back(block);
  fresh.window_blocks.push_back(block);
}

void KvSpace::release_window_block(BlockTable& table, std::int64_t i) {
  const BlockId block = std::exchange(table.window_blocks[static_cast<std::size_t>(i)], kNoBlock);
  if (block != kNoBlock) window_pool_.release(block, owner_[block] != kNoBlock);
}

void KvSpace::pass_window(BlockTable& table, std::int64_t computed) {
  if (window_tokens_ == 0) return;
  TANDEM_CHECK(computed <= table.tokens, format("{} of {} tokens are computed", computed, table.tokens));
  const std::int64_t first = std::min(first_seen_block(computed), size_of(table));
  for (; table.window_begin < first; ++table.window_begin) release_window_block(table, table.window_begin);
}

void KvSpace::drop_window(BlockTable& table) {
  if (window_tokens_ == 0) return;
  for (; table.window_begin < size_of(table); ++table.window_begin) release_window_block(table, table.window_begin);
}

void KvSpace::truncate(BlockTable& table, std::int64_t tokens) {
  TANDEM_CHECK(tokens >= 0 && tokens <= table.tokens, format("truncate {} tokens to {}", table.tokens, tokens));
  const bool keeps_window = window_tokens_ == 0 || tokens == 0 || first_seen_block(tokens) >= table.window_begin;
  TANDEM_CHECK(keeps_window, format("the window of token {} is gone", tokens));
  while (size_of(table) > blocks_of(tokens)) {
    if (window_tokens_ > 0) {
      release_window_block(table, size_of(table) - 1);
      table.window_blocks.pop_back();
    }
    pool_.release(table.blocks.back(), size_of(table) <= table.published);
    table.blocks.pop_back();
  }
  table.published = std::min(table.published, size_of(table));
  table.window_begin = std::min(table.window_begin, size_of(table));
  table.tokens = tokens;
  TANDEM_CHECK(table.published * kBlockTokens <= tokens, format("token {} is in a published block", tokens));
}

void KvSpace::publish(BlockTable& table, std::uint64_t salt, std::span<const std::int32_t> tokens,
                      std::int64_t computed) {
  TANDEM_CHECK(computed <= table.tokens && computed <= static_cast<std::int64_t>(tokens.size()),
               format("publish {} of {} positions, {} tokens", computed, table.tokens, tokens.size()));
  if (!prefix_cache_) return;
  for (; (table.published + 1) * kBlockTokens <= computed; ++table.published) {
    const auto at = static_cast<std::size_t>(table.published);
    const BlockTokens content = tokens.subspan(at * kBlockTokens).first<kBlockTokens>();
    PrefixIndex::Parent parent{.salt = salt};
    if (at > 0) parent.block = table.blocks[at - 1];
    BlockId& own = table.blocks[at];
    if (const std::optional<BlockId> known = index_.find(parent, content)) {
      pool_.retain(*known);
      pool_.release(own, false);
      own = *known;
    } else {
      index_.insert(parent, content, own);
    }
    if (window_tokens_ > 0) publish_window_block(table, table.published);
  }
}

// The same for the window block beside a block that the index knows.
void KvSpace::publish_window_block(BlockTable& table, std::int64_t i) {
  const BlockId block = table.blocks[static_cast<std::size_t>(i)];
  BlockId& own = table.window_blocks[static_cast<std::size_t>(i)];
  if (own == kNoBlock) return;
  if (const BlockId known = beside_[block]; known != kNoBlock) {
    window_pool_.retain(known);
    window_pool_.release(own, false);
    own = known;
  } else {
    beside_[block] = own;
    owner_[own] = block;
  }
}

void KvSpace::release(BlockTable& table) {
  truncate(table, 0);
  table = {};
}

KvSpace::Usage KvSpace::usage() const {
  return {.blocks = pool_.blocks(),
          .held = pool_.held(),
          .cached = pool_.cached(),
          .window_blocks = window_pool_.blocks(),
          .window_held = window_pool_.held(),
          .lookup_tokens = lookup_tokens_,
          .hit_tokens = hit_tokens_};
}

std::int64_t KvSpace::blocks_needed(const BlockTable& table, std::int64_t count) {
  return std::max<std::int64_t>(0, blocks_of(table.tokens + count) - size_of(table));
}

std::int64_t KvSpace::available() const {
  return pool_.available();
}

void KvSpace::check_integrity() const {
  pool_.check_integrity();
  index_.check_integrity();
  for (BlockId block = 0; block < pool_.blocks(); ++block) {
    const bool known = index_.contains(block);
    TANDEM_CHECK(!known || pool_.references(block) > 0 || pool_.is_cached(block),
                 format("free block {} is indexed", block));
    TANDEM_CHECK(known || !pool_.is_cached(block), format("block {} is cached and not indexed", block));
  }
  check_window_integrity();
}

void KvSpace::check_window_integrity() const {
  window_pool_.check_integrity();
  for (BlockId block = 0; block < pool_.blocks(); ++block) {
    const BlockId beside = beside_[block];
    if (beside == kNoBlock) continue;
    TANDEM_CHECK(index_.contains(block), format("block {} has a window block and is not indexed", block));
    TANDEM_CHECK(owner_[beside] == block, format("window block {} is beside two blocks", beside));
  }
  for (BlockId block = 0; block < window_pool_.blocks(); ++block) {
    const BlockId owner = owner_[block];
    TANDEM_CHECK(owner == kNoBlock || beside_[owner] == block, format("window block {} is not where it says", block));
    TANDEM_CHECK(owner != kNoBlock || !window_pool_.is_cached(block),
                 format("window block {} is cached and beside nothing", block));
    TANDEM_CHECK(owner == kNoBlock || window_pool_.references(block) <= pool_.references(owner),
                 format("window block {} is held by more than its block", block));
  }
  TANDEM_CHECK(window_pool_.held() <= pool_.held(), "more window blocks are held than blocks");
}

void KvSpace::check_window_integrity(std::span<const BlockTable* const> tables) const {
  std::vector<std::int32_t> references(static_cast<std::size_t>(window_pool_.blocks()), 0);
  for (const BlockTable* table : tables) {
    TANDEM_CHECK(table->window_blocks.size() == (window_tokens_ > 0 ? table->blocks.size() : 0),
                 "window blocks are not beside blocks");
    for (std::int64_t i = 0; i < std::ssize(table->window_blocks); ++i) {
      const BlockId block = table->window_blocks[static_cast<std::size_t>(i)];
      TANDEM_CHECK((block == kNoBlock) == (i < table->window_begin), format("window block at {}: wrongly held", i));
      if (block == kNoBlock) continue;
      ++references[static_cast<std::size_t>(block)];
      const BlockId owner = i < table->published ? table->blocks[static_cast<std::size_t>(i)] : kNoBlock;
      TANDEM_CHECK(owner_[block] == owner, format("window block {} at {}: wrongly owned", block, i));
    }
  }
  for (BlockId block = 0; block < window_pool_.blocks(); ++block)
    TANDEM_CHECK(references[static_cast<std::size_t>(block)] == window_pool_.references(block),
                 format("window block {} has {} references, tables hold {}", block, window_pool_.references(block),
                        references[static_cast<std::size_t>(block)]));
}

void KvSpace::check_integrity(std::span<const BlockTable* const> tables) const {
  check_integrity();
  std::vector<std::int32_t> references(static_cast<std::size_t>(pool_.blocks()), 0);
  for (const BlockTable* table : tables) {
    TANDEM_CHECK(size_of(*table) == blocks_of(table->tokens),
                 format("{} blocks, {} tokens", size_of(*table), table->tokens));
    TANDEM_CHECK(table->published * kBlockTokens <= table->tokens, "more is published than is in use");
    for (std::int64_t i = 0; i < size_of(*table); ++i) {
      const BlockId block = table->blocks[static_cast<std::size_t>(i)];
      ++references[static_cast<std::size_t>(block)];
      TANDEM_CHECK(index_.contains(block) == (i < table->published),
                   format("block {} at {}: wrongly indexed", block, i));
    }
  }
  for (BlockId block = 0; block < pool_.blocks(); ++block) {
    const std::int32_t found = references[static_cast<std::size_t>(block)];
    TANDEM_CHECK(found == pool_.references(block),
                 format("block {} has {} references, tables hold {}", block, pool_.references(block), found));
  }
  check_window_integrity(tables);
}

}  // namespace tandem
