// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The FP8 product kernel.
//
// Shape: a block owns 128 rows x 128 or 256 columns; two math warpgroups take 64 rows each, one thread feeds a ring of
// 128-deep stages with plain copies of whole tiles. A stage's products are summed inside the tensor core (about 14
// bits) for 128 of k only, then scaled and added in f32. K runs in order, so bits do not depend on the number of rows.
//
// With kSplit > 1 the blocks of a cluster take parts of k and add up in rank order through each other's shared memory.
// Sharing a weight tile or rows inside a cluster by multicast copies was tried and was slower by a fifth to a third.
//
// Weights do not come from the previous kernel, so their first stages are fetched while it still runs.
// Bound by memory up to about 200 rows an expert. Measured: docs/performance.md.
#pragma once

#include <cuda_bf16.h>

#include "ops/cuda/gemm/fp8_gemm.h"
#include "ops/cuda/gemm/fp8_tile.h"
#include "ops/cuda/ptx/bulk_copy.cuh"
#include "ops/cuda/ptx/cluster.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/ptx/e4m3.cuh"
#include "ops/cuda/ptx/mbarrier.cuh"
#include "ops/cuda/ptx/wgmma.cuh"

namespace tandem::cuda::fp8_gemm {

inline constexpr int kThreads = 384;
inline constexpr int kRowBlocks = 2;  // of 64 rows, a math warpgroup each

template <int kColumnBlocks_, int kSplit_, bool kSwiGlu_>
struct Variant {
  static constexpr int kColumnBlocks = kColumnBlocks_;  // of 128
  static constexpr int kSplit = kSplit_;                // blocks of a cluster
  static constexpr bool kSwiGlu = kSwiGlu_;
  static constexpr int kStages = kColumnBlocks == 2 ? 4 : 6;
  static_assert(!kSwiGlu || (kColumnBlocks == 2 && kSplit == 1), "gate and up of the same columns meet in one block");
};

template <class V>
struct alignas(1024) Shared {
  std::uint8_t weight[V::kStages][V::kColumnBlocks][Fp8Tile::kWeightBytes];
  std::uint8_t x[V::kStages][kRowBlocks][Fp8Tile::kBytes];
  float x_scales[V::kStages][kRowBlocks][Fp8Tile::kRows];
  std::uint64_t full[V::kStages], free[V::kStages];
};

// What this block computes. Blocks with the same columns and other rows are neighbours: they read a weight tile at
// about the same time, so it comes from memory once.
struct Work {
  int expert, column_block;  // first, of 128
  int row_tile;              // of 128 rows, in the expert
  int rank;                  // in the cluster
  int k_begin, k_end;        // tiles of 128
};

template <class V>
__device__ inline Work work_of_block(const Fp8Gemm& op) {
  const int k_tiles = op.k / Fp8Tile::kDepth, row_tiles = (op.rows_max + 127) / 128;
  const int tile = static_cast<int>(blockIdx.x) / V::kSplit;
  Work w;
  w.rank = static_cast<int>(blockIdx.x) % V::kSplit;
  w.column_block = tile / row_tiles * V::kColumnBlocks;
  w.row_tile = tile % row_tiles;
  w.expert = static_cast<int>(blockIdx.y);
  w.k_begin = k_tiles * w.rank / V::kSplit;
  w.k_end = k_tiles * (w.rank + 1) / V::kSplit;
  return w;
}

template <class V>
__device__ inline void feed_weight(Shared<V>& s, const Fp8Gemm& op, const Work& w, int k, int stage) {
  constexpr int kBytes = V::kColumnBlocks * Fp8Tile::kWeightBytes;
  ptx::expect(&s.full[stage], kBytes);
  const std::size_t tile =
      (static_cast<std::size_t>(w.expert) * (op.k / Fp8Tile::kDepth) + k) * (op.n / Fp8Tile::kWeightRows) +
      w.column_block;
  const std::uint8_t* from = op.weight + tile * Fp8Tile::kWeightBytes;
  if (op.rows_max <= 128)
    ptx::bulk_load_once(s.weight[stage], from, kBytes, &s.full[stage]);
  else  // the other row tiles read it as well
    ptx::bulk_load(s.weight[stage], from, kBytes, &s.full[stage]);
}

template <class V>
__device__ inline void feed_x(Shared<V>& s, const Fp8Gemm& op, int row, int row_blocks, int k, int stage) {
  constexpr int kScaleBytes = Fp8Tile::kRows * 4;
  ptx::arrive_expecting(&s.full[stage], row_blocks * (Fp8Tile::kBytes + kScaleBytes));
  const std::size_t tile = static_cast<std::size_t>(k) * (op.x_rows / Fp8Tile::kRows) + row / Fp8Tile::kRows;
  ptx::bulk_load(s.x[stage], op.x + tile * Fp8Tile::kBytes, row_blocks * Fp8Tile::kBytes, &s.full[stage]);
  ptx::bulk_load(s.x_scales[stage], op.x_scales + k * op.x_rows + row, row_blocks * kScaleBytes, &s.full[stage]);
}

// Rows of this block, known once the previous kernel has ended.
struct RowRange {
  int first, count;
  __device__ int blocks() const { return (count + Fp8Tile::kRows - 1) / Fp8Tile::kRows; }
};

__device__ inline RowRange rows_of_block(const Fp8Gemm& op, const Work& w) {
  const int before = w.row_tile * 128;
  return {op.row_begin[w.expert] + before, min(max(op.row_count[w.expert] - before, 0), 128)};
}

template <class V>
__device__ inline void feed(Shared<V>& s, const Fp8Gemm& op, const Work& w) {
  const int count = w.k_end - w.k_begin, early = min(count, V::kStages);
  for (int i = 0; i < early; ++i) feed_weight<V>(s, op, w, w.k_begin + i, i);
  ptx::wait_for_previous_kernel();
  const RowRange rows = rows_of_block(op, w);
  if (rows.count == 0) {  // what was fetched early must have arrived before the block may end
    for (int i = 0; i < early; ++i) ptx::arrive(&s.full[i]);
    for (int i = 0; i < early; ++i) ptx::wait(&s.full[i], 0);
    return;
  }
  for (int i = 0; i < count; ++i) {
    const int stage = i % V::kStages;
    if (i >= V::kStages) {
      ptx::wait(&s.free[stage], (i / V::kStages - 1) & 1);
      feed_weight<V>(s, op, w, w.k_begin + i, stage);
    }
    feed_x<V>(s, op, rows.first, rows.blocks(), w.k_begin + i, stage);
  }
}

// A warp has read a stage.
__device__ inline void release(std::uint64_t* barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) ptx::arrive(barrier);
}

// 64 rows x kColumnBlocks · 128 columns; accumulators as in ptx/wgmma.cuh, column block after column block.
template <class V>
__device__ inline void multiply(Shared<V>& s, const Fp8Gemm& op, const Work& w, int group, bool active,
                                float (&out)[64 * V::kColumnBlocks]) {
  const int thread = threadIdx.x % 128, row = thread / 32 * 16 + (thread % 32 >> 2);
  const int k_tiles = op.k / Fp8Tile::kDepth;
  const float* weight_scales =
      op.weight_scales +
      (static_cast<std::size_t>(w.expert) * (op.n / Fp8Tile::kWeightRows) + w.column_block) * k_tiles;
#pragma unroll
  for (int i = 0; i < 64 * V::kColumnBlocks; ++i) out[i] = 0;
  float next[V::kColumnBlocks];
#pragma unroll
  for (int b = 0; b < V::kColumnBlocks; ++b) next[b] = weight_scales[b * k_tiles + w.k_begin];
  for (int k = w.k_begin, i = 0; k < w.k_end; ++k, ++i) {
    const int stage = i % V::kStages;
    float scale[V::kColumnBlocks];
#pragma unroll
    for (int b = 0; b < V::kColumnBlocks; ++b) {
      scale[b] = next[b];
      next[b] = weight_scales[b * k_tiles + min(k + 1, w.k_end - 1)];
    }
    ptx::wait(&s.full[stage], i / V::kStages & 1);
    if (!active) {
      release(&s.free[stage]);
      continue;
    }
    const float x_scale[2] = {s.x_scales[stage][group][row], s.x_scales[stage][group][row + 8]};
    const std::uint32_t x = ptx::shared_address(s.x[stage][group]);
#pragma unroll
    for (int b = 0; b < V::kColumnBlocks; ++b) {
      const std::uint32_t weight = ptx::shared_address(s.weight[stage][b]);
      float t[64];
      ptx::pin(t);
      ptx::wgmma_fence();
#pragma unroll
      for (int step = 0; step < 4; ++step)
        ptx::wgmma_e4m3_n128(t, ptx::descriptor(x + 32 * step, 1024, ptx::Swizzle::k128),
                             ptx::descriptor(weight + 32 * step, 1024, ptx::Swizzle::k128), step > 0);
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>();
      ptx::pin(t);
      if (b == V::kColumnBlocks - 1) release(&s.free[stage]);
      const float factor[2] = {x_scale[0] * scale[b], x_scale[1] * scale[b]};
#pragma unroll
      for (int j = 0; j < 64; ++j) out[64 * b + j] = fmaf(t[j], factor[(j >> 1) & 1], out[64 * b + j]);
    }
  }
}

__device__ inline float silu(float x) {
  return x / (1.f + __expf(-x));
}

// silu(gate) · up, quantised by row and 128 columns, into the tile that the next product reads.
template <class V>
__device__ inline void store_hidden(const Fp8Gemm& op, const Work& w, const RowRange& rows, int group,
                                    const float (&out)[128]) {
  const int thread = threadIdx.x % 128, quad = thread & 3, row = thread / 32 * 16 + (thread % 32 >> 2);
  const int column = w.column_block / 2, first = rows.first + group * Fp8Tile::kRows;
  float h[64], largest[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    h[i] = silu(out[i]) * out[64 + i];
    largest[(i >> 1) & 1] = fmaxf(largest[(i >> 1) & 1], fabsf(h[i]));
  }
  const std::size_t index = static_cast<std::size_t>(column) * (op.x_rows / Fp8Tile::kRows) + first / Fp8Tile::kRows;
  std::uint8_t* tile = op.hidden + index * Fp8Tile::kBytes;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    largest[r] = fmaxf(largest[r], __shfl_xor_sync(~0u, largest[r], 1));
    largest[r] = fmaxf(largest[r], __shfl_xor_sync(~0u, largest[r], 2));
    const float scale = largest[r] > 0 ? largest[r] / ptx::kMaxE4m3 : 1.f;
    const float inverse = 1.f / scale;
    const int at = row + 8 * r;
    if (group * Fp8Tile::kRows + at >= rows.count) continue;
    if (quad == 0) op.hidden_scales[column * op.x_rows + first + at] = scale;
#pragma unroll
    for (int j = 0; j < 16; j += 2) {
      const std::uint32_t codes = ptx::to_e4m3(h[4 * j + 2 * r] * inverse, h[4 * j + 2 * r + 1] * inverse,
                                               h[4 * j + 4 + 2 * r] * inverse, h[4 * j + 5 + 2 * r] * inverse);
      *reinterpret_cast<std::uint16_t*>(tile + Fp8Tile::offset(at, 8 * j + 2 * quad)) =
          static_cast<std::uint16_t>(codes);
      *reinterpret_cast<std::uint16_t*>(tile + Fp8Tile::offset(at, 8 * j + 8 + 2 * quad)) =
          static_cast<std::uint16_t>(codes >> 16);
    }
  }
}

// Columns 8 j … of a thread's two rows, for j in [begin, end) of [0, 16 · kColumnBlocks).
__device__ inline void store_pair(const Fp8Gemm& op, const Work& w, const RowRange& rows, int group, int j, float a,
                                  float b, float c, float d) {
  const int thread = threadIdx.x % 128, quad = thread & 3;
  const int row = group * Fp8Tile::kRows + thread / 32 * 16 + (thread % 32 >> 2);
  std::uint16_t* at =
      op.out + static_cast<std::size_t>(rows.first + row) * op.n + w.column_block * 128 + 8 * j + 2 * quad;
  if (row < rows.count) *reinterpret_cast<__nv_bfloat162*>(at) = __floats2bfloat162_rn(a, b);
  if (row + 8 < rows.count)
    *reinterpret_cast<__nv_bfloat162*>(at + static_cast<std::size_t>(8) * op.n) = __floats2bfloat162_rn(c, d);
}

// Every block of the cluster has a sum over its part of k; each adds up and stores its share of the columns.
template <class V>
__device__ inline void store_sum_of_cluster(Shared<V>& s, const Fp8Gemm& op, const Work& w, const RowRange& rows,
                                            int group, const float (&out)[64 * V::kColumnBlocks]) {
  constexpr int kQuads = 16 * V::kColumnBlocks;  // float4 of a thread
  static_assert(kQuads % V::kSplit == 0 && sizeof(float4) * kQuads * 256 <= sizeof(s.weight));
  float4* sums = reinterpret_cast<float4*>(s.weight);
  const int thread = threadIdx.x;  // of both groups
  ptx::sync_threads<1, 256>();     // the other group has read the last stages as well
#pragma unroll
  for (int j = 0; j < kQuads; ++j)
    sums[j * 256 + thread] = make_float4(out[4 * j], out[4 * j + 1], out[4 * j + 2], out[4 * j + 3]);
  ptx::sync_cluster();
#pragma unroll
  for (int i = 0; i < kQuads / V::kSplit; ++i) {
    const int j = w.rank * (kQuads / V::kSplit) + i;
    float4 sum = ptx::load_from_cluster(&sums[j * 256 + thread], 0);
#pragma unroll
    for (int peer = 1; peer < V::kSplit; ++peer) {
      const float4 x = ptx::load_from_cluster(&sums[j * 256 + thread], peer);
      sum = make_float4(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w);
    }
    store_pair(op, w, rows, group, j, sum.x, sum.y, sum.z, sum.w);
  }
}

template <class V>
__device__ inline void compute(Shared<V>& s, const Fp8Gemm& op, const Work& w, int group) {
  const RowRange rows = rows_of_block(op, w);
  if (rows.count == 0) {
    if constexpr (V::kSplit > 1) ptx::sync_cluster();
    return;
  }
  float out[64 * V::kColumnBlocks];
  const bool active = group < rows.blocks();
  multiply<V>(s, op, w, group, active, out);
  if constexpr (V::kSplit > 1) {
    store_sum_of_cluster<V>(s, op, w, rows, group, out);
  } else if (active) {
    if constexpr (V::kSwiGlu) {
      store_hidden<V>(op, w, rows, group, out);
    } else {
#pragma unroll
      for (int j = 0; j < 16 * V::kColumnBlocks; ++j)
        store_pair(op, w, rows, group, j, out[4 * j], out[4 * j + 1], out[4 * j + 2], out[4 * j + 3]);
    }
  }
}

template <class V>
__global__ void __launch_bounds__(kThreads, 1) multiply_kernel(const __grid_constant__ Fp8Gemm op) {
  extern __shared__ std::uint8_t raw[];
  // Blocks of a cluster find each other's sums at the same place: dynamic memory begins alike in all of them.
  Shared<V>& s = *reinterpret_cast<Shared<V>*>((reinterpret_cast<std::uintptr_t>(raw) + 1023) & ~std::uintptr_t{1023});
  if (threadIdx.x == 0) {
    for (int i = 0; i < V::kStages; ++i) {
      ptx::init_barrier(&s.full[i], 1);
      ptx::init_barrier(&s.free[i], 8);  // math warps
    }
    ptx::publish_barriers();
  }
  __syncthreads();
  const Work w = work_of_block<V>(op);
  const int group = threadIdx.x / 128;
  if (group == kRowBlocks) {
    ptx::give_registers<40>();
    if (threadIdx.x == 128 * kRowBlocks) feed<V>(s, op, w);
    if constexpr (V::kSplit > 1) {
      __syncwarp();
      ptx::sync_cluster();
    }
  } else {
    ptx::take_registers<232>();
    ptx::wait_for_previous_kernel();
    ptx::let_next_kernel_start();
    compute<V>(s, op, w, group);
  }
  if constexpr (V::kSplit > 1) {
    __syncwarp();
    ptx::sync_cluster();  // nobody ends while another reads or writes its shared memory
  }
}

}  // namespace tandem::cuda::fp8_gemm
