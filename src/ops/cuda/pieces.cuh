// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/machine.cuh"

namespace tandem::cuda {

// Hands out an operator's workspace piece by piece.
class Pieces {
 public:
  static constexpr std::size_t kAlignment = 256;
  template <class T>
  static std::size_t bytes(std::int64_t count) {
    return divide_up(static_cast<std::size_t>(count) * sizeof(T), kAlignment) * kAlignment;
  }
  explicit Pieces(std::byte* memory) : at_(memory) {}
  template <class T>
  T* take(std::int64_t count) {
    T* piece = reinterpret_cast<T*>(at_);
    at_ += bytes<T>(count);
    return piece;
  }

 private:
  std::byte* at_;
};

}  // namespace tandem::cuda
