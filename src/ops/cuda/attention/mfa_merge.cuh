// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Adds the partial results of a sequence that was cut. A partial is [32][128] float4 as the decode kernel's registers
// have it, then maximum and sum of each head.
//
// kLanes groups of threads take every kLanes-th partial and add up in a fixed order, so bits depend on the number of
// partials and kLanes alone. Bound by L2: partials were just written.
#pragma once

#include "ops/cuda/attention/mfa_decode.cuh"

namespace tandem::cuda::mfa {

inline constexpr int kMergeThreads = 256;

__device__ inline float4 scaled_sum(float4 sum, float4 x, float scale0, float scale1) {
  return make_float4(fmaf(x.x, scale0, sum.x), fmaf(x.y, scale0, sum.y), fmaf(x.z, scale1, sum.z),
                     fmaf(x.w, scale1, sum.w));
}

// weights[head][partial], for the heads that the block's elements belong to.
__device__ inline void weigh(float* weights, const float* partials, const MfaMerge& merge, int head_begin, int heads) {
  constexpr std::size_t kStride = mfa_partial_bytes() / sizeof(float);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int h = warp; h < heads; h += kMergeThreads / 32) {
    const float* stats = partials + merge.first_partial * kStride + 64 * 256 + 2 * (head_begin + h);
    float maximum = kMinusInfinity, sum = 0;
    for (int p = lane; p < merge.count; p += 32) maximum = fmaxf(maximum, stats[p * kStride]);
    for (int d = 1; d < 32; d <<= 1) maximum = fmaxf(maximum, __shfl_xor_sync(~0u, maximum, d));
    for (int p = lane; p < merge.count; p += 32)
      sum = fmaf(stats[p * kStride + 1], exp2_fast(stats[p * kStride] - maximum), sum);
    for (int d = 1; d < 32; d <<= 1) sum += __shfl_xor_sync(~0u, sum, d);
    for (int p = lane; p < merge.count; p += 32)
      weights[h * merge.count + p] = exp2_fast(stats[p * kStride] - maximum) / sum;
  }
}

// Grid: (elements of a partial / elements of a block, merges).
template <int kLanes>
__global__ void __launch_bounds__(kMergeThreads) merge_partials(const __grid_constant__ MfaDecode op) {
  constexpr int kElements = kMergeThreads / kLanes;  // float4
  constexpr std::size_t kStride = mfa_partial_bytes() / sizeof(float4);
  extern __shared__ float weights[];
  __shared__ float4 lane_sums[kLanes][kElements];
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  const MfaMerge merge = op.merges[blockIdx.y];
  const int lane = threadIdx.x / kElements, element = blockIdx.x * kElements + threadIdx.x % kElements;
  // A block covers whole warps of the decode kernel; each owns 16 heads.
  constexpr int kHeads = kElements >= 128 ? 64 : kElements / 32 * 16;
  const int head_begin = blockIdx.x * kElements % 128 / 32 * 16;
  weigh(weights, op.partials, merge, head_begin, kHeads);
  __syncthreads();
  const int thread = element % 128, quad = thread & 3, row = thread / 32 * 16 + (thread % 32 >> 2);
  const float* weights0 = weights + (row - head_begin) * merge.count;
  const float* weights1 = weights0 + 8 * merge.count;
  const float4* from = reinterpret_cast<const float4*>(op.partials) + merge.first_partial * kStride + element;
  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 8
  for (int p = lane; p < merge.count; p += kLanes) sum = scaled_sum(sum, from[p * kStride], weights0[p], weights1[p]);
  if constexpr (kLanes > 1) {
    lane_sums[lane][threadIdx.x % kElements] = sum;
    __syncthreads();
    if (lane > 0) return;
#pragma unroll
    for (int i = 1; i < kLanes; ++i) sum = scaled_sum(sum, lane_sums[i][threadIdx.x], 1.f, 1.f);
  }
  std::uint16_t* at = op.out + (static_cast<std::size_t>(merge.sequence) * 64 + row) * 256 + element / 128 * 8 + 2 * quad;
  *reinterpret_cast<__nv_bfloat162*>(at) = __floats2bfloat162_rn(sum.x, sum.y);
  *reinterpret_cast<__nv_bfloat162*>(at + 8 * 256) = __floats2bfloat162_rn(sum.z, sum.w);
}

}  // namespace tandem::cuda::mfa
