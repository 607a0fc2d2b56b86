// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Four neighbouring lanes: what the tensor cores' accumulators have in pairs of columns leaves in 16 bytes a lane.
#pragma once

#include <cstdint>

#include "ops/cuda/bf16.cuh"

namespace tandem::cuda {

// Of the 64 rows in a warpgroup's accumulators, the first of a thread's two; the other is 8 on. thread: of the
// warpgroup.
template <class Thread>
__device__ inline int row_of_quad(Thread thread) {
  return thread / 32 * 16 + (thread % 32 >> 2);
}
__device__ inline int row_of_quad() {
  return row_of_quad(threadIdx.x % 128);
}

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

// The lower 16 bits of four words, and the upper ones.
__device__ inline uint2 lower_halves(const std::uint32_t (&word)[4]) {
  return make_uint2(__byte_perm(word[0], word[1], 0x5410), __byte_perm(word[2], word[3], 0x5410));
}
__device__ inline uint2 upper_halves(const std::uint32_t (&word)[4]) {
  return make_uint2(__byte_perm(word[0], word[1], 0x7632), __byte_perm(word[2], word[3], 0x7632));
}

// Of four times 8 columns in accumulators, x[4 i …] of the i-th, the 8 that belong to this lane of its quad, in bf16:
// of the first row, or of the second. All lanes of the warp.
__device__ inline uint4 bf16_of_quad(const float* x, int second) {
  std::uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) words[i] = packed_bf16(x[4 * i + 2 * second], x[4 * i + 2 * second + 1]);
  transpose_in_quad(words);
  return make_uint4(words[0], words[1], words[2], words[3]);
}

}  // namespace tandem::cuda
