// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Bytes between the memories of two GPUs, or within one, moved by a warp of each multiprocessor: for what is followed
// by kernels. A copy engine needs no multiprocessor, but whoever comes after it has none either, if others took them
// all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/stream.h"

namespace tandem::cuda {

// All at the same time.
struct BulkCopies {
  static constexpr int kMost = 3;
  struct Piece {
    std::byte* to = nullptr;
    const std::byte* from = nullptr;
    std::int64_t bytes = 0;  // a multiple of 16, as both addresses are; 0: nothing
  };
  Piece pieces[kMost];
};
void run(const BulkCopies& op, Stream stream);

}  // namespace tandem::cuda
