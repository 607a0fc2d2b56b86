// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "kv/kv_space.h"

#include <algorithm>

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
    : prefix_cache_(config.prefix_cache), pool_(config.blocks), index_(config.blocks) {}

std::vector<BlockId> KvSpace::find_chain(std::uint64_t salt, std::span<const std::int32_t> tokens,
                                         std::int64_t limit) const {
  const auto usable = std::clamp<std::int64_t>(limit, 0, static_cast<std::int64_t>(tokens.size()));
  return prefix_cache_ ? index_.longest(salt, tokens.first(static_cast<std::size_t>(usable))) : std::vector<BlockId>{};
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
  lookup_tokens_ += static_cast<std::int64_t>(tokens.size());
  hit_tokens_ += table.tokens;
  return table.tokens;
}

bool KvSpace::grow(BlockTable& table, std::int64_t count, std::vector<BlockId>& fresh) {
  const std::int64_t needed = blocks_needed(table, count);
  if (needed > pool_.available()) return false;
  for (std::int64_t i = 0; i < needed; ++i) {
    const BlockPool::Handout handout = *pool_.take();
    if (handout.evicted) index_.erase(handout.block);
    table.blocks.push_back(handout.block);
    fresh.push_back(handout.block);
  }
  table.tokens += count;
  return true;
}

void KvSpace::truncate(BlockTable& table, std::int64_t tokens) {
  TANDEM_CHECK(tokens >= 0 && tokens <= table.tokens, format("truncate {} tokens to {}", table.tokens, tokens));
  while (size_of(table) > blocks_of(tokens)) {
    pool_.release(table.blocks.back(), size_of(table) <= table.published);
    table.blocks.pop_back();
  }
  table.published = std::min(table.published, size_of(table));
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
}

}  // namespace tandem
