// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "kv/prefix_index.h"

#include <algorithm>

#include "base/check.h"
#include "base/format.h"
#include "base/rng.h"

namespace tandem {

PrefixIndex::PrefixIndex(std::int64_t blocks, Hash hash) : hash_(hash), entries_(static_cast<std::size_t>(blocks)) {}

std::uint64_t PrefixIndex::content_hash(std::uint64_t parent, BlockTokens tokens) {
  std::uint64_t hash = mix64(parent + 0x9e3779b97f4a7c15ull);  // so that salt 0 does not start from the fixed point 0
  for (std::int32_t token : tokens) hash = mix64(hash ^ static_cast<std::uint32_t>(token)) + 0x9e3779b97f4a7c15ull;
  return hash;
}

std::uint64_t PrefixIndex::hash_of(const Parent& parent, BlockTokens tokens) const {
  return hash_(parent.block ? entry(*parent.block).hash : parent.salt, tokens);
}

std::optional<BlockId> PrefixIndex::find(const Parent& parent, BlockTokens tokens) const {
  auto [first, last] = by_hash_.equal_range(hash_of(parent, tokens));
  for (; first != last; ++first) {
    const Entry& candidate = entry(first->second);
    if (candidate.parent == parent && std::ranges::equal(candidate.tokens, tokens)) return first->second;
  }
  return std::nullopt;
}

void PrefixIndex::insert(const Parent& parent, BlockTokens tokens, BlockId block) {
  TANDEM_CHECK(!contains(block), format("block {} is in the index", block));
  TANDEM_CHECK(!find(parent, tokens), format("block {} repeats a prefix", block));
  Entry& added = entry(block);
  added = {.present = true, .parent = parent, .hash = hash_of(parent, tokens)};
  std::ranges::copy(tokens, added.tokens.begin());
  if (parent.block) ++entry(*parent.block).children;
  by_hash_.emplace(added.hash, block);
}

void PrefixIndex::erase(BlockId block) {
  Entry& gone = entry(block);
  TANDEM_CHECK(gone.present, format("block {} is not in the index", block));
  TANDEM_CHECK(gone.children == 0, format("block {} has {} children in the index", block, gone.children));
  if (gone.parent.block) --entry(*gone.parent.block).children;
  auto [first, last] = by_hash_.equal_range(gone.hash);
  by_hash_.erase(std::find_if(first, last, [&](const auto& item) { return item.second == block; }));
  gone.present = false;
}

bool PrefixIndex::contains(BlockId block) const {
  return entry(block).present;
}

std::vector<BlockId> PrefixIndex::longest(std::uint64_t salt, std::span<const std::int32_t> tokens) const {
  std::vector<BlockId> chain;
  Parent parent{.salt = salt};
  for (; tokens.size() >= kBlockTokens; tokens = tokens.subspan(kBlockTokens)) {
    const std::optional<BlockId> next = find(parent, tokens.first<kBlockTokens>());
    if (!next) break;
    chain.push_back(*next);
    parent.block = next;
  }
  return chain;
}

void PrefixIndex::check_integrity() const {
  std::vector<std::int32_t> children(entries_.size(), 0);
  std::int64_t present = 0;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const Entry& one = entries_[i];
    if (!one.present) continue;
    ++present;
    if (one.parent.block) {
      TANDEM_CHECK(contains(*one.parent.block), format("block {} hangs below {}, which is gone", i, *one.parent.block));
      TANDEM_CHECK(entry(*one.parent.block).parent.salt == one.parent.salt, format("block {} changes the salt", i));
      ++children[static_cast<std::size_t>(*one.parent.block)];
    }
    TANDEM_CHECK(hash_of(one.parent, one.tokens) == one.hash, format("block {} has another hash", i));
    TANDEM_CHECK(find(one.parent, one.tokens) == static_cast<BlockId>(i), format("block {} is not found", i));
  }
  TANDEM_CHECK(present == size(), format("{} entries, {} hashes", present, size()));
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    TANDEM_CHECK(!entries_[i].present || entries_[i].children == children[i], format("block {} miscounts children", i));
  }
}

}  // namespace tandem
