// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Sums, maxima and scans over a warp or a block, in one order for the same number of threads.
#pragma once

#include <cstdint>

namespace tandem::cuda {

template <class Combine, class T>
__device__ T warp_reduce(T value, const Combine& combine) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
  return value;
}

__device__ inline float warp_sum(float value) {
  return warp_reduce(value, [](float a, float b) { return a + b; });
}

// NaN loses against everything.
__device__ inline float warp_max(float value) {
  return warp_reduce(value, [](float a, float b) { return fmaxf(a, b); });
}

// Every thread gets the sum. shared has a place for each warp.
template <int kThreads>
__device__ float block_sum(float value, float* shared) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kThreads / 32; ++warp) sum += shared[warp];
  return sum;
}

// Of each thread, what those before it and its own value combine to. All threads of the block; warps has a place for
// each warp.
template <int kWarps, class Combine>
__device__ std::int32_t block_scan(std::int32_t value, std::int32_t (&warps)[kWarps], const Combine& combine) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const std::int32_t before = __shfl_up_sync(~0u, value, step);
    if (lane >= step) value = combine(before, value);
  }
  __syncthreads();  // what was there has been read
  if (lane == 31) warps[warp] = value;
  __syncthreads();
  for (int w = 0; w < warp; ++w) value = combine(value, warps[w]);
  return value;
}

// Values up to and with this thread's, added up; total becomes that of the block.
template <int kWarps>
__device__ std::int32_t block_scan_sum(std::int32_t value, std::int32_t (&warps)[kWarps], std::int32_t& total) {
  const std::int32_t through = block_scan(value, warps, [](std::int32_t a, std::int32_t b) { return a + b; });
  total = 0;
  for (int w = 0; w < kWarps; ++w) total += warps[w];
  return through;
}

}  // namespace tandem::cuda
