// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The FP8 product of more tiles than there are multiprocessors: one block a multiprocessor, tiles dealt in rounds.
//
// What is left over after whole rounds would be a round of its own that keeps few busy. So those tiles are cut along k
// into as many parts as fill the round. Parts come first; whoever has a tile's first part adds the others', in their
// order, from memory.
//
// How many tiles there are is known on the device only: rows of experts are counted by the kernel before.
#pragma once

#include "ops/cuda/gemm/fp8_gemm.cuh"

namespace tandem::cuda::fp8_gemm {

inline constexpr int kPartsMax = 4;
// [multiprocessors] counters, then float4 [16 · kColumnBlocks][256 threads] for each part but the first: fewer
// than multiprocessors.
inline constexpr std::size_t kCounterBytes = 1024;

// How tiles are dealt, found once by each block, and rows of the experts: what a block does next is looked up here
// again and again, as the registers are the sums'.
struct Dealt {
  int rounds, rest, parts;  // whole rounds; tiles left over and what each of them is cut into
  std::int32_t begin[kDealtExpertsMax], count[kDealtExpertsMax];

  __device__ int row_tiles(int expert) const { return (count[expert] + 127) / 128; }
};

template <class V>
__device__ inline int column_tiles(const Fp8Gemm& op) {
  return op.n / Fp8Tile::kWeightRows / V::kColumnBlocks;
}

// All threads of the block.
template <class V>
__device__ inline void deal(const Fp8Gemm& op, Dealt& d) {
  for (int e = static_cast<int>(threadIdx.x); e < op.experts; e += kThreads) {
    d.begin[e] = op.row_begin ? op.row_begin[e] : 0;
    d.count[e] = op.row_begin ? op.row_count[e] : op.rows_max;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int tiles = 0;
    for (int e = 0; e < op.experts; ++e) tiles += d.row_tiles(e);
    tiles *= column_tiles<V>(op);
    const int blocks = static_cast<int>(gridDim.x);
    d.rounds = tiles / blocks;
    d.rest = tiles % blocks;
    d.parts = d.rest > 0 ? min(min(kPartsMax, blocks / d.rest), op.k / Fp8Tile::kDepth) : 1;
  }
  __syncthreads();
}

// What a block does in a round; one before the first is for a part of a left-over tile.
struct Turn {
  Work work;
  RowRange rows;
  int left, part, parts;  // of a left-over tile: which, and its part of k
};

__device__ inline int first_round(const Dealt& d) {
  return static_cast<int>(blockIdx.x) < d.rest * d.parts ? -1 : 0;
}

// Neighbouring blocks have the same columns and other rows of an expert, as in the kernel for few tiles.
template <class V>
__device__ inline Turn turn_of_round(const Fp8Gemm& op, const Dealt& d, int round) {
  const int block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
  const bool whole = round >= 0;
  Turn t{.left = whole ? 0 : block % d.rest, .part = whole ? 0 : block / d.rest, .parts = whole ? 1 : d.parts};
  int tile = whole ? round * blocks + block : d.rounds * blocks + t.left;
  Work& w = t.work;
  w.expert = 0;
  int row_tiles = d.row_tiles(0);
  while (tile >= row_tiles * column_tiles<V>(op)) {
    tile -= row_tiles * column_tiles<V>(op);
    row_tiles = d.row_tiles(++w.expert);
  }
  const int k_tiles = op.k / Fp8Tile::kDepth;
  w.rank = 0;
  set_columns<V>(op, tile / row_tiles, w);
  w.row_tile = tile % row_tiles;
  w.k_begin = k_tiles * t.part / t.parts;
  w.k_end = k_tiles * (t.part + 1) / t.parts;
  set_weight(op, w);
  t.rows = {d.begin[w.expert] + w.row_tile * 128, min(d.count[w.expert] - w.row_tile * 128, 128)};
  return t;
}

template <class V>
__device__ inline void feed_dealt(Shared<V>& s, const Fp8Gemm& op, const Dealt& d) {
  int step = 0;
  for (int round = first_round(d); round < d.rounds; ++round) {
    const Turn t = turn_of_round<V>(op, d, round);
    for (int k = t.work.k_begin; k < t.work.k_end; ++k, ++step) {
      const int stage = step % V::kStages;
      if (step >= V::kStages) ptx::wait(&s.free[stage], (step / V::kStages - 1) & 1);
      feed_weight<V>(s, op, t.work, k, stage);
      feed_x<V>(s, op, t.rows.first, t.rows.blocks(), k, stage);
    }
  }
}

// Where part (from 1) of a left-over tile lies.
template <class V>
__device__ inline float4* part_memory(const Fp8Gemm& op, int left, int part, int parts) {
  const std::size_t at = static_cast<std::size_t>(left * (parts - 1) + part - 1);
  return reinterpret_cast<float4*>(op.scratch + kCounterBytes) + at * (16 * V::kColumnBlocks * 256);
}

template <class V>
__device__ inline void give_part(const Fp8Gemm& op, int left, int part, int parts,
                                 const float (&out)[64 * V::kColumnBlocks]) {
  float4* to = part_memory<V>(op, left, part, parts);
#pragma unroll
  for (int j = 0; j < 16 * V::kColumnBlocks; ++j)
    __stcg(&to[j * 256 + threadIdx.x], make_float4(out[4 * j], out[4 * j + 1], out[4 * j + 2], out[4 * j + 3]));
  __threadfence();
  ptx::sync_threads(1, 256);
  if (threadIdx.x == 0) atomicAdd(reinterpret_cast<unsigned*>(op.scratch) + left, 1u);
}

template <class V>
__device__ inline void add_parts(const Fp8Gemm& op, int left, int parts, float (&out)[64 * V::kColumnBlocks]) {
  if (threadIdx.x == 0) {
    volatile unsigned* given = reinterpret_cast<unsigned*>(op.scratch) + left;
    while (*given < static_cast<unsigned>(parts - 1)) {
    }
    *given = 0;  // for the next product
    __threadfence();
  }
  ptx::sync_threads(1, 256);
  for (int part = 1; part < parts; ++part) {
    const float4* from = part_memory<V>(op, left, part, parts);
#pragma unroll
    for (int j = 0; j < 16 * V::kColumnBlocks; ++j) {
      const float4 x = __ldcg(&from[j * 256 + threadIdx.x]);
      out[4 * j] += x.x;
      out[4 * j + 1] += x.y;
      out[4 * j + 2] += x.z;
      out[4 * j + 3] += x.w;
    }
  }
}

template <class V>
__device__ inline void end_turn(const Fp8Gemm& op, const Turn& t, int group, float (&out)[64 * V::kColumnBlocks]) {
  if (t.part > 0) return give_part<V>(op, t.left, t.part, t.parts, out);
  if (t.parts > 1) add_parts<V>(op, t.left, t.parts, out);
  store_tile<V>(op, t.work, t.rows, group, out);
}

template <class V>
__device__ inline void compute_dealt(Shared<V>& s, const Fp8Gemm& op, const Dealt& d, int group) {
  int step = 0;
  for (int round = first_round(d); round < d.rounds; ++round) {
    float out[64 * V::kColumnBlocks];
    const Turn now = turn_of_round<V>(op, d, round);
    multiply_tile<V>(s, op, now.work, now.rows, step, group, out);
    const Turn t = turn_of_round<V>(op, d, anew(round));
    step += t.work.k_end - t.work.k_begin;
    end_turn<V>(op, t, group, out);
  }
}

template <class V>
__global__ void __launch_bounds__(kThreads, 1) multiply_dealt_kernel(const __grid_constant__ Fp8Gemm op) {
  __shared__ Dealt dealt;
  Shared<V>& s = ptx::dynamic_shared<Shared<V>>();
  init_ring(s.full, s.free, 8);  // math warps
  ptx::wait_for_previous_kernel();
  deal<V>(op, dealt);
  const int group = ptx::warpgroup();
  if (group == kRowBlocks) {
    ptx::give_registers<V::kFeederRegisters>();
    if (threadIdx.x == 128 * kRowBlocks) feed_dealt<V>(s, op, dealt);
  } else {
    ptx::take_registers<V::kMathRegisters>();
    ptx::let_next_kernel_start();
    compute_dealt<V>(s, op, dealt, group);
  }
}

}  // namespace tandem::cuda::fp8_gemm
