// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "kv/block_pool.h"

#include "base/check.h"
#include "base/format.h"

namespace tandem {

BlockPool::BlockPool(std::int64_t blocks) {
  TANDEM_CHECK(blocks >= 0 && blocks <= INT32_MAX, format("{} blocks", blocks));
  blocks_.resize(static_cast<std::size_t>(blocks));
  free_.reserve(blocks_.size());
  for (std::int64_t block = blocks; block-- > 0;) free_.push_back(static_cast<BlockId>(block));  // 0 is taken first
}

BlockPool::Block& BlockPool::at(BlockId block) {
  TANDEM_CHECK(block >= 0 && block < blocks(), format("block {} of {}", block, blocks()));
  return blocks_[static_cast<std::size_t>(block)];
}

const BlockPool::Block& BlockPool::at(BlockId block) const {
  return const_cast<BlockPool*>(this)->at(block);
}

std::optional<BlockPool::Handout> BlockPool::take() {
  if (available() == 0) return std::nullopt;
  Handout handout{.block = 0, .evicted = free_.empty()};
  if (handout.evicted) {
    handout.block = cached_.front();
    cached_.pop_front();
  } else {
    handout.block = free_.back();
    free_.pop_back();
  }
  Block& block = at(handout.block);
  block.state = State::kHeld;
  block.references = 1;
  return handout;
}

void BlockPool::retain(BlockId id) {
  Block& block = at(id);
  TANDEM_CHECK(block.state != State::kFree, format("block {} is free", id));
  if (block.state == State::kCached) {
    cached_.erase(block.place);
    block.state = State::kHeld;
  }
  ++block.references;
}

void BlockPool::release(BlockId id, bool keep) {
  Block& block = at(id);
  TANDEM_CHECK(block.state == State::kHeld, format("block {} is not held", id));
  if (--block.references > 0) return;
  if (keep) {
    block.state = State::kCached;
    block.place = cached_.insert(cached_.end(), id);
  } else {
    block.state = State::kFree;
    free_.push_back(id);
  }
}

void BlockPool::forget(BlockId id) {
  Block& block = at(id);
  TANDEM_CHECK(block.state == State::kCached, format("block {} is not cached", id));
  cached_.erase(block.place);
  block.state = State::kFree;
  free_.push_back(id);
}

std::int64_t BlockPool::blocks() const {
  return static_cast<std::int64_t>(blocks_.size());
}
std::int64_t BlockPool::held() const {
  return blocks() - available();
}
std::int64_t BlockPool::available() const {
  return static_cast<std::int64_t>(free_.size()) + cached();
}
std::int32_t BlockPool::references(BlockId block) const {
  return at(block).references;
}
bool BlockPool::is_cached(BlockId block) const {
  return at(block).state == State::kCached;
}

void BlockPool::check_integrity() const {
  std::vector<int> listed(blocks_.size(), 0);
  for (BlockId id : free_) {
    TANDEM_CHECK(at(id).state == State::kFree, format("block {} is in the free list", id));
    ++listed[static_cast<std::size_t>(id)];
  }
  for (auto place = cached_.begin(); place != cached_.end(); ++place) {
    TANDEM_CHECK(at(*place).state == State::kCached, format("block {} is in the cached list", *place));
    TANDEM_CHECK(at(*place).place == place, format("block {} does not know its place", *place));
    ++listed[static_cast<std::size_t>(*place)];
  }
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const bool held = blocks_[i].state == State::kHeld;
    TANDEM_CHECK(listed[i] == (held ? 0 : 1), format("block {} is in {} lists", i, listed[i]));
    TANDEM_CHECK((blocks_[i].references > 0) == held, format("block {} has {} references", i, blocks_[i].references));
  }
}

}  // namespace tandem
