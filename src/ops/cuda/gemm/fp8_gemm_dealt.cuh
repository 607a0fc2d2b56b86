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

struct Deal {
  int rounds, rest, parts;  // whole rounds; tiles left over and what each of them is cut into
};

template <class V>
__device__ inline int column_tiles(const Fp8Gemm& op) {
  return op.n / Fp8Tile::kWeightRows / V::kColumnBlocks;
}

__device__ inline int row_tiles_of(const Fp8Gemm& op, int expert) {
  return ((op.row_begin ? op.row_count[expert] : op.rows_max) + 127) / 128;
}

template <class V>
__device__ inline Deal deal(const Fp8Gemm& op) {
  int tiles = 0;
  for (int e = 0; e < op.experts; ++e) tiles += row_tiles_of(op, e);
  tiles *= column_tiles<V>(op);
  const int blocks = static_cast<int>(gridDim.x);
  Deal d{tiles / blocks, tiles % blocks, 1};
  if (d.rest > 0) d.parts = min(min(kPartsMax, blocks / d.rest), op.k / Fp8Tile::kDepth);
  return d;
}

// Neighbouring blocks have the same columns and other rows of an expert, as in the kernel for few tiles.
template <class V>
__device__ inline Work work_of_tile(const Fp8Gemm& op, int tile, int part, int parts) {
  int expert = 0, row_tiles = row_tiles_of(op, 0);
  while (tile >= row_tiles * column_tiles<V>(op)) {
    tile -= row_tiles * column_tiles<V>(op);
    row_tiles = row_tiles_of(op, ++expert);
  }
  const int k_tiles = op.k / Fp8Tile::kDepth;
  Work w;
  w.expert = expert;
  w.rank = 0;
  set_columns<V>(op, tile / row_tiles, w);
  w.row_tile = tile % row_tiles;
  w.k_begin = k_tiles * part / parts;
  w.k_end = k_tiles * (part + 1) / parts;
  set_weight(op, w);
  return w;
}

// What this block does, one after the other: a part of a left-over tile, if there is one for it, then its rounds.
template <class V, class Do>
__device__ inline void for_own_tiles(const Fp8Gemm& op, const Do& what) {
  const Deal d = deal<V>(op);
  const int block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
  for (int round = block < d.rest * d.parts ? -1 : 0; round < d.rounds; ++round) {
    const bool whole = round >= 0;
    const int left = whole ? 0 : block % d.rest, part = whole ? 0 : block / d.rest;
    what(work_of_tile<V>(op, (whole ? round * blocks + block : d.rounds * blocks + left), part, whole ? 1 : d.parts),
         left, part, whole ? 1 : d.parts);
  }
}

template <class V>
__device__ inline void feed_dealt(Shared<V>& s, const Fp8Gemm& op) {
  int step = 0;
  for_own_tiles<V>(op, [&](const Work& w, int, int, int) {
    const RowRange rows = rows_of_block(op, w);
    for (int k = w.k_begin; k < w.k_end; ++k, ++step) {
      const int stage = step % V::kStages;
      if (step >= V::kStages) ptx::wait(&s.free[stage], (step / V::kStages - 1) & 1);
      feed_weight<V>(s, op, w, k, stage);
      feed_x<V>(s, op, rows.first, rows.blocks(), k, stage);
    }
  });
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
__device__ inline void compute_dealt(Shared<V>& s, const Fp8Gemm& op, int group) {
  int step = 0;
  for_own_tiles<V>(op, [&](const Work& w, int left, int part, int parts) {
    const RowRange rows = rows_of_block(op, w);
    float out[64 * V::kColumnBlocks];
    multiply_tile<V>(s, op, w, rows, step, group, out);
    step += w.k_end - w.k_begin;
    if (part > 0) return give_part<V>(op, left, part, parts, out);
    if (parts > 1) add_parts<V>(op, left, parts, out);
    store_tile<V>(op, w, rows, group, out);
  });
}

template <class V>
__global__ void __launch_bounds__(kThreads, 1) multiply_dealt_kernel(const __grid_constant__ Fp8Gemm op) {
  Shared<V>& s = ptx::dynamic_shared<Shared<V>>();
  init_ring(s.full, s.free, 8);  // math warps
  ptx::wait_for_previous_kernel();
  const int group = ptx::warpgroup();
  if (group == kRowBlocks) {
    ptx::give_registers<40>();
    if (threadIdx.x == 128 * kRowBlocks) feed_dealt<V>(s, op);
  } else {
    ptx::take_registers<232>();
    ptx::let_next_kernel_start();
    compute_dealt<V>(s, op, group);
  }
}

}  // namespace tandem::cuda::fp8_gemm
