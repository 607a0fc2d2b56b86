// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Numbers of descriptors that are kept from being given out again for a while.
//
// UCX calls a piece of its shared memory by the process and by the number of its descriptor (/proc/PID/fd/N). When an
// endpoint ends and the next one is made, the same numbers are free, and a peer that still has the address of the one
// before (it was slow, or stopped) attaches to the queue of the next. When that happens while the queue is being made,
// UCX 1.13 waits for ever for a message that it cannot take yet. With a file of another kind under the number it would
// write into that. Under a retired number a peer finds nothing that can be opened.
#pragma once

#include <cstddef>
#include <deque>
#include <mutex>
#include <span>
#include <vector>

namespace tandem {

class RetiredDescriptors {
 public:
  // More than so many are never kept: the oldest go first.
  explicit RetiredDescriptors(std::size_t kept_max) : kept_max_(kept_max) {}
  ~RetiredDescriptors();
  RetiredDescriptors(const RetiredDescriptors&) = delete;
  RetiredDescriptors& operator=(const RetiredDescriptors&) = delete;

  // Of these numbers those that are free; any thread.
  void retire(std::span<const int> numbers);

 private:
  const std::size_t kept_max_;
  std::mutex mutex_;  // guards what follows
  std::deque<int> kept_;
};

// Those of this process's descriptors that are pieces of UCX's shared memory.
std::vector<int> ucx_memory_descriptors();

}  // namespace tandem
