// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A kernel that makes something of what came in and stores it where the other GPU reads it, as a slice's kernels do at
// the end of a layer: for measuring what a hand-over takes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/stream.h"

namespace tandem::cuda {

// to[i] = from[i] + 1, and its beginning in times[*round], after which *round is one more.
struct PassRows {
  std::uint32_t* to;          // of either GPU
  const std::uint32_t* from;  // as all else, on this one; both are multiples of 16
  std::int64_t words;         // 1, or a multiple of 4
  std::uint64_t* times;       // nanoseconds of the GPU's clock
  std::uint32_t* round;
};
void run(const PassRows& op, Stream stream);

}  // namespace tandem::cuda
