// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Four neighbouring lanes: what the tensor cores' accumulators have in pairs of columns leaves in 16 bytes a lane.
#pragma once

#include <cstdint>

namespace tandem::cuda {

__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

// Word i of each lane of four, to lane i of them. All lanes of the warp.
__device__ inline void transpose_in_quad(std::uint32_t (&word)[4]) {
  const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
  const std::uint32_t a = __shfl_xor_sync(~0u, odd ? word[0] : word[1], 1);
  const std::uint32_t b = __shfl_xor_sync(~0u, odd ? word[2] : word[3], 1);
  (odd ? word[0] : word[1]) = a, (odd ? word[2] : word[3]) = b;
  const std::uint32_t c = __shfl_xor_sync(~0u, high ? word[0] : word[2], 2);
  const std::uint32_t d = __shfl_xor_sync(~0u, high ? word[1] : word[3], 2);
  (high ? word[0] : word[2]) = c, (high ? word[1] : word[3]) = d;
}

}  // namespace tandem::cuda
