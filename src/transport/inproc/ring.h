// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A first-in, first-out queue of fixed capacity that allocates once. Not thread-safe: whoever shares one locks around
// it.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "base/check.h"

namespace tandem {

template <class T>
class Ring {
 public:
  explicit Ring(std::size_t capacity = 0) : slots_(capacity) {}

  bool empty() const { return count_ == 0; }
  bool full() const { return count_ == slots_.size(); }
  std::size_t size() const { return count_; }

  void push(T value) {
    TANDEM_CHECK(!full(), "push into a full ring");
    std::size_t end = first_ + count_;
    if (end >= slots_.size()) end -= slots_.size();
    slots_[end] = std::move(value);
    ++count_;
  }
  T pop() {
    TANDEM_CHECK(!empty(), "pop from an empty ring");
    T value = std::move(slots_[first_]);
    if (++first_ == slots_.size()) first_ = 0;
    --count_;
    return value;
  }
  void clear() {
    while (!empty()) (void)pop();
  }

 private:
  std::vector<T> slots_;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
};

}  // namespace tandem
