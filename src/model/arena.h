// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Scratch memory of a worker: tensors are carved off in order and given back all at once. Sized once, so that a step
// allocates nothing.
#pragma once

#include <cstddef>

#include "base/check.h"
#include "ops/backend.h"
#include "tensor/tensor.h"

namespace tandem {

class Arena {
 public:
  Arena(Backend& backend, std::size_t bytes) : buffer_(backend.allocate(bytes)) {}

  Tensor f32(std::int64_t rows, std::int64_t columns) {
    return Tensor(take(rows * columns * 4), DType::kF32, {rows, columns});
  }
  Tensor f8(std::int64_t rows, std::int64_t columns) {
    return Tensor(take(rows * columns), DType::kF8E4M3, {rows, columns});
  }
  Tensor i32(std::int64_t count) { return Tensor(take(count * 4), DType::kI32, {count}); }

  // Gives back what was taken after its construction.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), mark_(arena.used_) {}
    ~Scope() { arena_.used_ = mark_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    std::size_t mark_;
  };

 private:
  void* take(std::int64_t bytes) {
    const std::size_t begin = used_;
    used_ += (static_cast<std::size_t>(bytes) + 63) / 64 * 64;
    TANDEM_CHECK(used_ <= buffer_.bytes(), "scratch memory is smaller than the model said it needs");
    return buffer_.bytes_data() + begin;
  }

  Buffer buffer_;
  std::size_t used_ = 0;
};

// Bytes of scratch for tensors of these many elements, 4 bytes each, with room for alignment.
inline std::size_t scratch_bytes(std::initializer_list<std::int64_t> elements) {
  std::size_t bytes = 0;
  for (const std::int64_t count : elements) bytes += static_cast<std::size_t>(count) * 4 + 64;
  return bytes;
}

}  // namespace tandem
