// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The merge kernel of decode_merge.h.
//
// kLanes groups of threads take every kLanes-th partial and add up in a fixed order, so bits depend on the number of
// partials and kLanes alone. Bound by L2: partials were just written.
#pragma once

#include <cuda_bf16.h>

#include "ops/cuda/attention/decode_merge.h"
#include "ops/cuda/attention/online_softmax.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"

namespace tandem::cuda::decode {

inline constexpr int kMergeThreads = 256;

__device__ inline float4 scaled_sum(float4 sum, float4 x, float scale0, float scale1) {
  return make_float4(fmaf(x.x, scale0, sum.x), fmaf(x.y, scale0, sum.y), fmaf(x.z, scale1, sum.z),
                     fmaf(x.w, scale1, sum.w));
}

// weights[head][partial], for the heads that the block's elements belong to. stride: from partial to partial.
template <int kHeads>
__device__ inline void weigh(float* weights, const float2* stats, int stride, int count) {
  // All loads first, then a few threads for each head.
  for (int i = threadIdx.x; i < count * kHeads; i += kMergeThreads) {
    const float2 x = stats[i / kHeads * stride + i % kHeads];
    weights[i % kHeads * count + i / kHeads] = x.x;
    weights[(kHeads + i % kHeads) * count + i / kHeads] = x.y;
  }
  __syncthreads();
  constexpr int kWidth = kMergeThreads / kHeads < 32 ? kMergeThreads / kHeads : 32;
  const int head = threadIdx.x / kWidth, first = threadIdx.x % kWidth;
  if (head >= kHeads) return;
  float* maxima = weights + head * count;
  const float* sums = maxima + kHeads * count;
  float maximum = kMinusInfinity, sum = 0;
  for (int p = first; p < count; p += kWidth) maximum = fmaxf(maximum, maxima[p]);
#pragma unroll
  for (int d = 1; d < kWidth; d <<= 1) maximum = fmaxf(maximum, __shfl_xor_sync(~0u, maximum, d));
  for (int p = first; p < count; p += kWidth) sum = fmaf(sums[p], exp2_fast(maxima[p] - maximum), sum);
#pragma unroll
  for (int d = 1; d < kWidth; d <<= 1) sum += __shfl_xor_sync(~0u, sum, d);
  for (int p = first; p < count; p += kWidth) maxima[p] = exp2_fast(maxima[p] - maximum) / sum;
}

inline constexpr std::size_t merge_shared_bytes(int lanes, int count_max) {
  return static_cast<std::size_t>(lanes == 1 ? 64 : 16) * 2 * count_max * sizeof(float);
}

// What a merge of the grid adds up, and where it goes.
struct Merged {
  std::int32_t count;           // of partial results; fewer than two: nothing to do
  std::int32_t partial_stride;  // from one to the next, in units
  const float4* values;         // of the unit at hand, of the first
  const float2* stats;          // [64] likewise
  std::int32_t stats_stride;
};

__device__ inline Merged merged_of(const DecodeMerging& op) {
  const DecodeMerge merge = op.work.merges[blockIdx.y];
  const int units = op.shape.units(), unit = static_cast<int>(blockIdx.z);
  const int head_group = unit / op.shape.column_groups;
  return {merge.count, units,
          reinterpret_cast<const float4*>(op.work.partials) +
              (static_cast<std::size_t>(merge.first_partial) * units + unit) * (kDecodePartialFloats / 4),
          reinterpret_cast<const float2*>(op.work.partial_stats) +
              (merge.first_partial * op.shape.head_groups + head_group) * 64,
          64 * op.shape.head_groups};
}

__device__ inline void store_merged(const DecodeMerging& op, int head, int column, float a, float b) {
  const int unit = static_cast<int>(blockIdx.z), width = 256 * op.shape.column_groups;
  const int head_group = unit / op.shape.column_groups, column_group = unit % op.shape.column_groups;
  const std::size_t row =
      (static_cast<std::size_t>(op.work.merges[blockIdx.y].sequence) * op.shape.head_groups + head_group) * 64 + head;
  *reinterpret_cast<__nv_bfloat162*>(op.out + row * width + column_group * 256 + column) = __floats2bfloat162_rn(a, b);
}

// Grid: (elements of a unit / elements of a block, merges, units of a merge).
template <int kLanes, class Op>
__global__ void __launch_bounds__(kMergeThreads) merge_partials(const __grid_constant__ Op op) {
  constexpr int kElements = kMergeThreads / kLanes;  // float4
  constexpr int kAhead = 8;
  // A block covers whole warps of the decode kernel; each owns 16 heads.
  constexpr int kHeads = kElements >= 128 ? 64 : kElements / 32 * 16;
  extern __shared__ float weights[];
  __shared__ float4 lane_sums[kLanes][kElements];
  const Merged merge = merged_of(op);
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  if (merge.count < 2) return;
  const int lane = threadIdx.x / kElements, element = blockIdx.x * kElements + threadIdx.x % kElements;
  const int stride = merge.partial_stride * static_cast<int>(kDecodePartialFloats / 4);
  const float4* from = merge.values + element;
  float4 ahead[kAhead];  // on their way while the weights are computed
#pragma unroll
  for (int i = 0; i < kAhead; ++i)
    if (lane + i * kLanes < merge.count) ahead[i] = __ldcg(&from[(lane + i * kLanes) * stride]);
  const int head_begin = blockIdx.x * kElements % 128 / 32 * 16;
  weigh<kHeads>(weights, merge.stats + head_begin, merge.stats_stride, merge.count);
  __syncthreads();
  const int thread = element % 128, quad = thread & 3, row = thread / 32 * 16 + (thread % 32 >> 2);
  const float* weights0 = weights + (row - head_begin) * merge.count;
  const float* weights1 = weights0 + 8 * merge.count;
  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    const int p = lane + i * kLanes;
    if (p < merge.count) sum = scaled_sum(sum, ahead[i], weights0[p], weights1[p]);
  }
#pragma unroll 8
  for (int p = lane + kAhead * kLanes; p < merge.count; p += kLanes)
    sum = scaled_sum(sum, __ldcg(&from[p * stride]), weights0[p], weights1[p]);
  if constexpr (kLanes > 1) {
    lane_sums[lane][threadIdx.x % kElements] = sum;
    __syncthreads();
    if (lane > 0) return;
#pragma unroll
    for (int i = 1; i < kLanes; ++i) sum = scaled_sum(sum, lane_sums[i][threadIdx.x], 1.f, 1.f);
  }
  const int column = element / 128 * 8 + 2 * quad;
  store_merged(op, row, column, sum.x, sum.y);
  store_merged(op, row + 8, column, sum.z, sum.w);
}

}  // namespace tandem::cuda::decode
