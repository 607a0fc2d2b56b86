// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The merge kernel of decode_merge.h.
//
// kLanes groups of threads take every kLanes-th partial and add up in a fixed order, so bits depend on the number of
// partials and kLanes alone. Blocks begin where attention has left multiprocessors and are bound by what these read
// from L2, some 30 KB a microsecond each: so partial results of a bf16 output are bf16. Measured:
// docs/performance/gpu-kernels.md.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <type_traits>

#include "ops/cuda/attention/decode_merge.h"
#include "ops/cuda/attention/online_softmax.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/quad.cuh"

namespace tandem::cuda::decode {

inline constexpr int kMergeThreads = 256;

// 16 bytes of partial results: a thread's four values (pieces.cuh), two of one row and two of another, or those of two
// neighbours, which have the same rows.
template <class Values>
inline constexpr int kFours = std::is_same_v<Values, float4> ? 1 : 2;

__device__ inline float4 scaled_sum(float4 sum, float4 x, float scale0, float scale1) {
  return make_float4(fmaf(x.x, scale0, sum.x), fmaf(x.y, scale0, sum.y), fmaf(x.z, scale1, sum.z),
                     fmaf(x.w, scale1, sum.w));
}
__device__ inline void add(float4 (&sums)[1], float4 x, float scale0, float scale1) {
  sums[0] = scaled_sum(sums[0], x, scale0, scale1);
}
__device__ inline void add(float4 (&sums)[2], uint4 x, float scale0, float scale1) {
  const auto four = [](std::uint32_t first, std::uint32_t second) {
    return make_float4(low_of_bf16(first), high_of_bf16(first), low_of_bf16(second), high_of_bf16(second));
  };
  sums[0] = scaled_sum(sums[0], four(x.x, x.y), scale0, scale1);
  sums[1] = scaled_sum(sums[1], four(x.z, x.w), scale0, scale1);
}

// The weights of a block's kHeads, by some threads each: every kWidth-th pair of maximum and sum of a head's partial
// results is a thread's, the first kAhead of them on their way before all else.
template <int kHeads, int kAhead>
class Weights {
 public:
  __device__ Weights(const float2* stats, int stride, int count)
      : head_(static_cast<int>(threadIdx.x) / kWidth),
        first_(static_cast<int>(threadIdx.x) % kWidth),
        count_(count),
        from_(stats + head_ + first_ * stride),
        stride_(stride),
        own_(count - first_) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (i * kWidth < own_) ahead_[i] = __ldcg(&from_[i * kWidth * stride_]);
  }

  // To weights[head][partial].
  __device__ void find(float* weights) const {
    float maximum = kMinusInfinity, sum = 0;
    each([&](int, float2 x) { maximum = fmaxf(maximum, x.x); });
#pragma unroll
    for (int d = 1; d < kWidth; d <<= 1) maximum = fmaxf(maximum, __shfl_xor_sync(~0u, maximum, d));
    each([&](int, float2 x) { sum = fmaf(x.y, exp2_fast(x.x - maximum), sum); });
#pragma unroll
    for (int d = 1; d < kWidth; d <<= 1) sum += __shfl_xor_sync(~0u, sum, d);
    float* to = weights + head_ * count_ + first_;
    each([&](int at, float2 x) { to[at] = exp2_fast(x.x - maximum) / sum; });
  }

 private:
  static constexpr int kWidth = kMergeThreads / kHeads;
  static_assert(kWidth <= 32 && kWidth * kHeads == kMergeThreads);

  // f(at, pair), at counted in partial results from the thread's first on.
  template <class F>
  __device__ void each(const F& f) const {
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (i * kWidth < own_) f(i * kWidth, ahead_[i]);
    for (int at = kAhead * kWidth; at < own_; at += kWidth) f(at, __ldcg(&from_[at * stride_]));
  }

  int head_, first_, count_;  // of partial results
  const float2* from_;        // the thread's first
  int stride_, own_;          // from partial to partial; of partial results from the thread's first on
  float2 ahead_[kAhead];
};

// Of a unit, 16 bytes each; and blocks that take them, with so many lanes.
template <class Values>
inline constexpr int kElementsOfUnit = 4096 / kFours<Values>;

template <class Values>
inline constexpr unsigned merge_blocks(int lanes) {
  return static_cast<unsigned>(kElementsOfUnit<Values> * lanes / kMergeThreads);
}

// Of the decode kernel, that made a block's elements. A warp of it owns 16 heads.
template <class Values>
inline constexpr int threads_of_block(int lanes) {
  return kMergeThreads / lanes * kFours<Values>;
}
template <class Values>
inline constexpr int heads_of_block(int lanes) {
  return std::min(threads_of_block<Values>(lanes), 128) / 32 * 16;
}

template <class Values>
inline constexpr std::size_t merge_shared_bytes(int lanes, int count_max) {
  return static_cast<std::size_t>(heads_of_block<Values>(lanes)) * count_max * sizeof(float);
}

// What a merge of the grid adds up.
template <class Values>
struct Merged {
  std::int32_t count;           // of partial results; fewer than two: nothing to do
  std::int32_t partial_stride;  // from one to the next, in units
  const Values* values;         // of the unit at hand, of the first
  const float2* stats;          // [64] likewise
  std::int32_t stats_stride;
};

__device__ inline Merged<uint4> merged_of(const DecodeMerging& op) {
  const DecodeMerge merge = op.work.merges[blockIdx.y];
  const int units = op.shape.units(), unit = static_cast<int>(blockIdx.z);
  const int head_group = unit / op.shape.column_groups;
  return {merge.count, units,
          reinterpret_cast<const uint4*>(op.work.partials) +
              (static_cast<std::size_t>(merge.first_partial) * units + unit) * kElementsOfUnit<uint4>,
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

// Grid: (merge_blocks, merges, units of a merge). 16 lanes have 96 parts on their way at once.
template <int kLanes, class Op>
__global__ void __launch_bounds__(kMergeThreads, kLanes > 1 ? 3 : 4) merge_partials(const __grid_constant__ Op op) {
  using Values = std::remove_cvref_t<decltype(*merged_of(op).values)>;
  constexpr int kElements = kMergeThreads / kLanes;  // of 16 bytes
  constexpr int kAhead = kLanes > 1 ? 6 : 8, kStatsAhead = kLanes > 1 ? 6 : 2;
  constexpr int kSums = kFours<Values>, kHeads = heads_of_block<Values>(kLanes);
  extern __shared__ float weights[];
  __shared__ float4 lane_sums[kLanes][kElements][kSums];
  const Merged<Values> merge = merged_of(op);
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  if (merge.count < 2) return;
  const int lane = threadIdx.x / kElements, element = blockIdx.x * kElements + threadIdx.x % kElements;
  const int head_begin = blockIdx.x * threads_of_block<Values>(kLanes) % 128 / 32 * 16;
  // What weights are found from is asked for first, or it comes after all that the values move.
  const Weights<kHeads, kStatsAhead> found(merge.stats + head_begin, merge.stats_stride, merge.count);
  const int stride = merge.partial_stride * kElementsOfUnit<Values>;
  const Values* from = merge.values + element;
  Values ahead[kAhead];  // on their way while the weights are found
#pragma unroll
  for (int i = 0; i < kAhead; ++i)
    if (lane + i * kLanes < merge.count) ahead[i] = __ldcg(&from[(lane + i * kLanes) * stride]);
  found.find(weights);
  __syncthreads();
  const int thread = element * kSums % 128, quad = thread & 3, row = row_of_quad(thread);
  const float* weights0 = weights + (row - head_begin) * merge.count;
  const float* weights1 = weights0 + 8 * merge.count;
  float4 sums[kSums];
#pragma unroll
  for (float4& sum : sums) sum = make_float4(0, 0, 0, 0);
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    const int p = lane + i * kLanes;
    if (p < merge.count) add(sums, ahead[i], weights0[p], weights1[p]);
  }
#pragma unroll 4
  for (int p = lane + kAhead * kLanes; p < merge.count; p += kLanes)
    add(sums, __ldcg(&from[p * stride]), weights0[p], weights1[p]);
  if constexpr (kLanes > 1) {
#pragma unroll
    for (int k = 0; k < kSums; ++k) lane_sums[lane][threadIdx.x % kElements][k] = sums[k];
    __syncthreads();
    if (lane > 0) return;
#pragma unroll
    for (int i = 1; i < kLanes; ++i)
#pragma unroll
      for (int k = 0; k < kSums; ++k) sums[k] = scaled_sum(sums[k], lane_sums[i][threadIdx.x][k], 1.f, 1.f);
  }
#pragma unroll
  for (int k = 0; k < kSums; ++k) {
    const int column = element * kSums / 128 * 8 + 2 * (quad + k);
    const float4 sum = sums[k];
    store_merged(op, row, column, sum.x, sum.y);
    store_merged(op, row + 8, column, sum.z, sum.w);
  }
}

}  // namespace tandem::cuda::decode
