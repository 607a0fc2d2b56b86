// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Who holds which block of the cache. Counts references, hands out free blocks, and keeps blocks whose content is still
// worth something until somebody needs the room (least recently used first).
//
// It knows ids and counts only: no tokens, no memory, no sequences. One thread.
//
// A block is in exactly one state:
//   free      nobody holds it, its content is worthless
//   held      references > 0
//   cached    references == 0, but the prefix index still names it; evicted in order of last release
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <vector>

namespace tandem {

using BlockId = std::int32_t;

class BlockPool {
 public:
  explicit BlockPool(std::int64_t blocks);

  // A block with one reference, or nothing when all are held. A cached block is taken only when none is free; evicted
  // then says that the caller must drop it from the index before use.
  struct Handout {
    BlockId block;
    bool evicted;
  };
  std::optional<Handout> take();
  void retain(BlockId block);  // of a held or cached block
  // Drops one reference. keep: at zero the block becomes cached instead of free.
  void release(BlockId block, bool keep);
  // A cached block's content is worthless from now on: it becomes free.
  void forget(BlockId block);

  std::int64_t blocks() const;
  std::int64_t held() const;
  std::int64_t available() const;  // free + cached
  std::int64_t cached() const { return static_cast<std::int64_t>(cached_.size()); }
  std::int32_t references(BlockId block) const;
  bool is_cached(BlockId block) const;
  // Stops the program when a count, list or state contradicts another. For tests, the simulator and idle time.
  void check_integrity() const;

 private:
  enum class State : std::uint8_t { kFree, kHeld, kCached };
  struct Block {
    State state = State::kFree;
    std::int32_t references = 0;
    std::list<BlockId>::iterator place;  // in cached_, while cached
  };
  Block& at(BlockId block);
  const Block& at(BlockId block) const;

  std::vector<Block> blocks_;
  std::vector<BlockId> free_;  // a stack: the block given back last is warm in the machine's caches
  std::list<BlockId> cached_;  // released longest ago first
};

}  // namespace tandem
