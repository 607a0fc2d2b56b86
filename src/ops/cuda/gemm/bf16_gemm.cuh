// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The bf16 product kernel.
//
// Shape: a block owns 128 columns x 8 to 64 rows. The weight is the operand a, so that few rows are few columns of b
// and not half-empty tiles; the terms of a row are columns of b too, so that a weight is read from shared memory once
// for all of them. Two math warpgroups take 64 columns each, one thread feeds a ring of 64-deep stages with plain
// copies. Terms are summed apart inside the tensor core for 256 of k, then added up in f32.
//
// With a split the blocks of a cluster take parts of k and add up over their tree through each other's shared memory.
//
// Weights do not come from the previous kernel, so their first stages are fetched while it still runs.
#pragma once

#include "ops/cuda/gemm/bf16_gemm.h"
#include "ops/cuda/gemm/bf16_tile.h"
#include "ops/cuda/gemm/ring.cuh"
#include "ops/cuda/ptx/block.cuh"
#include "ops/cuda/ptx/bulk_copy.cuh"
#include "ops/cuda/ptx/cluster.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/ptx/mbarrier.cuh"
#include "ops/cuda/ptx/wgmma_bf16.cuh"

namespace tandem::cuda::bf16_gemm {

inline constexpr int kThreads = 384;
inline constexpr int kMathThreads = 256;
inline constexpr int kUnitsOfStage = Bf16Tile::kDepth / KParts::kUnit;
inline constexpr int kUnitsOfSum = 256 / KParts::kUnit;  // inside the tensor core

template <int kAtoms_>
struct Variant {
  static constexpr int kAtoms = kAtoms_;  // of 8 rows
  static constexpr int kRows = kAtoms * Bf16Tile::kAtomRows;
  static constexpr int kTerms = Bf16Tile::kTerms;
  static constexpr int kAccumulators = kAtoms * kTerms * 4;
  static constexpr int kSums = kAtoms * 4;  // of a thread
  static constexpr int kAtomBytes = kTerms * Bf16Tile::kAtomBytes;
  static constexpr int kStageBytes = Bf16Tile::kWeightBytes + kAtoms * kAtomBytes;
  static constexpr int kStages = 208 * 1024 / kStageBytes;
};

template <class V>
struct alignas(1024) Shared {
  std::byte weight[V::kStages][Bf16Tile::kWeightBytes];
  std::byte x[V::kStages][V::kAtoms * V::kAtomBytes];
  std::uint64_t full[V::kStages], free[V::kStages];
};

// What this block computes. Blocks with the same columns and other rows are neighbours.
struct Work {
  const std::byte* weight;
  Bf16RowTile rows;
  int column_tile, rank, split;
  int part_begin, part_end;
};

template <class V>
__device__ inline Work work_of_block(const Bf16Gemm& op, int split) {
  const int tile = static_cast<int>(blockIdx.x) / split;
  Work w;
  w.split = split;
  w.rank = static_cast<int>(blockIdx.x) % split;
  w.part_begin = op.parts.count / split * w.rank;
  w.part_end = w.part_begin + op.parts.count / split;
  if (op.row_tiles) {
    ptx::wait_for_previous_kernel();
    w.rows = op.row_tiles[blockIdx.y];
    w.column_tile = tile;
    w.weight = w.rows.expert < 0 ? nullptr : op.weights[w.rows.expert];
  } else {
    const int row_tiles = (op.rows + V::kRows - 1) / V::kRows, row_tile = tile % row_tiles;
    w.rows = {0, row_tile * V::kAtoms, row_tile * V::kRows, min((row_tile + 1) * V::kRows, op.rows)};
    w.column_tile = tile / row_tiles;
    w.weight = op.weight;
  }
  return w;
}

// A place in the ring of stages.
template <class V>
struct Place {
  int stage = 0;
  std::uint32_t parity = 0;
  __device__ void advance() {
    if (++stage < V::kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

template <class V>
__device__ inline void feed(Shared<V>& s, const Bf16Gemm& op, const Work& w) {
  const int begin = op.parts.bounds[w.part_begin], end = op.parts.bounds[w.part_end];
  const int first = begin / kUnitsOfStage;
  const int count = begin == end ? 0 : (end + kUnitsOfStage - 1) / kUnitsOfStage - first;
  const int early = min(count, V::kStages);
  const std::size_t column_tiles = (op.n + Bf16Tile::kWeightRows - 1) / Bf16Tile::kWeightRows;
  const auto atoms = (op.rows + Bf16Tile::kAtomRows - 1) / Bf16Tile::kAtomRows;
  const std::uint32_t x_bytes = min(V::kAtoms, atoms - w.rows.atom) * V::kAtomBytes;
  const auto feed_weight = [&](int i, int stage) {
    const std::byte* tile = w.weight + ((first + i) * column_tiles + w.column_tile) * Bf16Tile::kWeightBytes;
    ptx::expect(&s.full[stage], Bf16Tile::kWeightBytes);
    if (op.rows <= V::kRows)
      ptx::bulk_load_once(s.weight[stage], tile, Bf16Tile::kWeightBytes, &s.full[stage]);
    else  // other tiles of rows read it as well
      ptx::bulk_load(s.weight[stage], tile, Bf16Tile::kWeightBytes, &s.full[stage]);
  };
  const auto feed_x = [&](int i, int stage) {
    ptx::arrive_expecting(&s.full[stage], x_bytes);
    const std::size_t at = static_cast<std::size_t>(first + i) * atoms + w.rows.atom;
    ptx::bulk_load(s.x[stage], op.x + at * V::kAtomBytes, x_bytes, &s.full[stage]);
  };
  for (int i = 0; i < early; ++i) feed_weight(i, i);
  ptx::wait_for_previous_kernel();
  Place<V> at;
  for (int i = 0; i < count; ++i, at.advance()) {
    if (i >= V::kStages) {
      ptx::wait(&s.free[at.stage], at.parity ^ 1);
      feed_weight(i, at.stage);
    }
    feed_x(i, at.stage);
  }
}

// Walks the units of k that a block has, in order: a stage is let go when its last unit has been multiplied.
template <class V>
struct RingReader {
  Shared<V>& s;
  int first, last;  // units
  int group;        // of 64 columns
  Place<V> at;      // of the unit that is next

  __device__ bool ends_stage(int unit) const { return unit % kUnitsOfStage == kUnitsOfStage - 1 || unit == last - 1; }

  __device__ void issue(int unit, bool accumulate, float (&c)[V::kAccumulators]) {
    if (unit % kUnitsOfStage == 0 || unit == first) ptx::wait(&s.full[at.stage], at.parity);
    const int k = unit % kUnitsOfStage * KParts::kUnit * 2;  // bytes
    const ptx::Descriptor weight = ptx::descriptor(
        ptx::shared_address(s.weight[at.stage]) + group * 64 * Bf16Tile::kRowBytes + k, 1024, ptx::Swizzle::k128);
    const ptx::Descriptor x = ptx::descriptor(ptx::shared_address(s.x[at.stage]) + k, 1024, ptx::Swizzle::k128);
    ptx::wgmma_bf16(c, weight, x, accumulate);
    ptx::wgmma_bf16(c, weight + 32, x + 32, true);
    ptx::wgmma_commit();
  }

  // The products of units [begin, end), one after the other inside the tensor core.
  __device__ void multiply(int begin, int end, float (&c)[V::kAccumulators]) {
    ptx::pin(c);
    ptx::wgmma_fence();
    int before = at.stage;  // of the unit before
    for (int unit = begin; unit < end; ++unit) {
      issue(unit, unit > begin, c);
      if (unit > begin) {
        ptx::wgmma_wait<1>();
        if (ends_stage(unit - 1)) ptx::arrive_as_warp(&s.free[before]);
      }
      before = at.stage;
      if (ends_stage(unit)) at.advance();
    }
    ptx::wgmma_wait<0>();
    ptx::pin(c);
    if (ends_stage(end - 1)) ptx::arrive_as_warp(&s.free[before]);
  }
};

// The sum over one part of k.
template <class V>
__device__ inline void add_part(RingReader<V>& ring, int begin, int end, float (&sum)[V::kSums]) {
#pragma unroll
  for (int i = 0; i < V::kSums; ++i) sum[i] = 0;
  for (int unit = begin; unit < end; unit += kUnitsOfSum) {
    float c[V::kAccumulators];
    ring.multiply(unit, min(unit + kUnitsOfSum, end), c);
#pragma unroll
    for (int atom = 0; atom < V::kAtoms; ++atom)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float terms = c[4 * (atom * V::kTerms + V::kTerms - 1) + e];  // the least first
#pragma unroll
        for (int term = V::kTerms - 2; term >= 0; --term) terms += c[4 * (atom * V::kTerms + term) + e];
        sum[4 * atom + e] += terms;
      }
  }
}

template <int kCount>
__device__ inline void add(float (&to)[kCount], const float (&other)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i] += other[i];
}

// The tree over the block's one, two or four parts.
template <class V>
__device__ inline void add_parts(RingReader<V>& ring, const Bf16Gemm& op, const Work& w, float (&total)[V::kSums]) {
  const std::int32_t* bounds = op.parts.bounds + w.part_begin;
  const int count = w.part_end - w.part_begin;
  float next[V::kSums];
  add_part(ring, bounds[0], bounds[1], total);
  if (count == 1) return;
  add_part(ring, bounds[1], bounds[2], next);
  add(total, next);
  if (count == 2) return;
  float right[V::kSums];
  add_part(ring, bounds[2], bounds[3], right);
  add_part(ring, bounds[3], bounds[4], next);
  add(right, next);
  add(total, right);
}

// Four sums of a math thread: two rows of each of two columns (ptx/wgmma.cuh, with the columns as rows).
__device__ inline void store_four(const Bf16Gemm& op, const Work& w, int thread, int atom, float4 sum) {
  const int warp = thread / 32, lane = thread % 32;
  const int column = w.column_tile * Bf16Tile::kWeightRows + warp * 16 + lane / 4;
  const int row = (w.rows.atom + atom) * Bf16Tile::kAtomRows + 2 * (lane % 4);
  const auto store = [&](int r, int c, float value) {
    if (r >= w.rows.begin && r < w.rows.end && c < op.n) op.out[r * op.out_stride + c] = value;
  };
  store(row, column, sum.x);
  store(row + 1, column, sum.y);
  store(row, column + 8, sum.z);
  store(row + 1, column + 8, sum.w);
}

__device__ inline float4 operator+(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// Every block of the cluster has a sum over its parts; each adds up and stores its share, over the tree of ranks.
template <class V>
__device__ inline void store_sum_of_cluster(Shared<V>& s, const Bf16Gemm& op, const Work& w,
                                            const float (&total)[V::kSums]) {
  static_assert(V::kAtoms * kMathThreads * sizeof(float4) <= sizeof(s.weight));
  float4* sums = reinterpret_cast<float4*>(s.weight);
  const int thread = threadIdx.x;
  ptx::sync_threads(1, kMathThreads);  // the other group has read the last stages as well
#pragma unroll
  for (int atom = 0; atom < V::kAtoms; ++atom)
    sums[atom * kMathThreads + thread] =
        make_float4(total[4 * atom], total[4 * atom + 1], total[4 * atom + 2], total[4 * atom + 3]);
  ptx::sync_cluster();
  const int share = V::kAtoms * kMathThreads / w.split;
  for (int i = thread; i < share; i += kMathThreads) {
    const int at = w.rank * share + i;
    float4 tree[8];
#pragma unroll
    for (int rank = 0; rank < 8; ++rank)
      if (rank < w.split) tree[rank] = ptx::load_from_cluster(&sums[at], rank);
#pragma unroll
    for (int step = 1; step < 8; step *= 2)
#pragma unroll
      for (int rank = 0; rank < 8; rank += 2 * step)
        if (rank + step < w.split) tree[rank] = tree[rank] + tree[rank + step];
    store_four(op, w, at % kMathThreads, at / kMathThreads, tree[0]);
  }
}

template <class V>
__device__ inline void compute(Shared<V>& s, const Bf16Gemm& op, const Work& w, int group) {
  RingReader<V> ring{s, op.parts.bounds[w.part_begin], op.parts.bounds[w.part_end], group, {}};
  float total[V::kSums];
  add_parts(ring, op, w, total);
  if (w.split > 1) return store_sum_of_cluster(s, op, w, total);
#pragma unroll
  for (int atom = 0; atom < V::kAtoms; ++atom)
    store_four(op, w, threadIdx.x, atom,
               make_float4(total[4 * atom], total[4 * atom + 1], total[4 * atom + 2], total[4 * atom + 3]));
}

struct Launch {
  Bf16Gemm op;
  int split;
};

template <class V>
__global__ void __launch_bounds__(kThreads, 1) multiply_kernel(const __grid_constant__ Launch launch) {
  // Blocks of a cluster find each other's sums at the same place: dynamic memory begins alike in all of them.
  Shared<V>& s = ptx::dynamic_shared<Shared<V>>();
  init_ring(s.full, s.free, {.feeders = 1, .readers = kMathThreads / 32});
  const Bf16Gemm& op = launch.op;
  const Work w = work_of_block<V>(op, launch.split);
  if (w.rows.expert < 0) return;  // and so do all blocks of the cluster
  const int group = ptx::warpgroup();
  if (group == 2) {
    ptx::give_registers<40>();
    if (threadIdx.x == kMathThreads) feed<V>(s, op, w);
    if (w.split > 1) {
      __syncwarp();
      ptx::sync_cluster();
    }
  } else {
    ptx::take_registers<232>();
    ptx::wait_for_previous_kernel();
    ptx::let_next_kernel_start();
    compute<V>(s, op, w, group);
  }
  if (w.split > 1) {
    __syncwarp();
    ptx::sync_cluster();  // nobody ends while another reads its shared memory
  }
}

}  // namespace tandem::cuda::bf16_gemm
