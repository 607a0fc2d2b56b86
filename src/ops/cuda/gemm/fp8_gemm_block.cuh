// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a block of the FP8 product kernels has, which work is its, and how it is fed.
#pragma once

#include "ops/cuda/gemm/fp8_gemm.h"
#include "ops/cuda/gemm/fp8_tile.h"
#include "ops/cuda/gemm/ring.cuh"
#include "ops/cuda/ptx/block.cuh"
#include "ops/cuda/ptx/bulk_copy.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/ptx/mbarrier.cuh"

namespace tandem::cuda::fp8_gemm {

inline constexpr int kThreads = 384;
inline constexpr int kRowBlocks = 2;  // of 64 rows, a math warpgroup each

// What leaves a block: rows, also before a norm or after one, or the rows of an expert's second product.
enum class Output : std::uint8_t { kRows, kNorm, kSwiGlu };

template <int kColumnBlocks_, int kSplit_, Output kOutput>
struct Variant {
  static constexpr int kColumnBlocks = kColumnBlocks_;  // of 128
  static constexpr int kSplit = kSplit_;                // blocks of a tile, neighbours in a cluster
  static constexpr bool kSwiGlu = kOutput == Output::kSwiGlu, kNorm = kOutput == Output::kNorm;
  static constexpr int kStages = kColumnBlocks == 2 ? 4 : 6;
  // Warps that feed multiply_kernel: a second one loads rows, as copies that one thread starts come one after the
  // other. Dealt tiles have one.
  static constexpr int kFeeders = kColumnBlocks == 2 ? 1 : 2;
  static constexpr int kFeederRegisters = kColumnBlocks == 2 ? 24 : 40, kMathRegisters = kColumnBlocks == 2 ? 240 : 232;
  static_assert(!kSwiGlu || (kColumnBlocks == 2 && kSplit == 1), "gate and up of the same columns meet in one block");
};

template <class V>
struct alignas(1024) Shared {
  std::uint8_t weight[V::kStages][V::kColumnBlocks][Fp8Tile::kWeightBytes];
  std::uint8_t x[V::kStages][kRowBlocks][Fp8Tile::kBytes];
  float x_scales[V::kStages][kRowBlocks][Fp8Tile::kRows];
  float factors[kRowBlocks * Fp8Tile::kRows];  // of the norm before, by row
  std::uint64_t full[V::kStages], free[V::kStages], has_factors;
};

// What this block computes. Blocks with the same columns and other rows are neighbours: they read a weight tile at
// about the same time, so it comes from memory once.
struct Work {
  Fp8Weight weight;
  int expert, column_block;  // first, of 128
  int second_column_block;   // of a block that has two
  int row_tile;              // of 128 rows, in the expert
  int rank;                  // among the blocks of the tile
  int k_begin, k_end;        // tiles of 128
};

// Of the columns that a block has, and of w's expert.
template <class V>
__device__ inline void set_columns(const Fp8Gemm& op, int column_tile, Work& w) {
  w.column_block = V::kSwiGlu ? column_tile : column_tile * V::kColumnBlocks;
  w.second_column_block = w.column_block + (V::kSwiGlu ? op.n / (2 * Fp8Tile::kWeightRows) : 1);
}

__device__ inline Fp8Weight weight_of(const Fp8Gemm& op, int expert) {
  if (op.weights) return op.weights[expert];
  const std::size_t blocks = op.n / Fp8Tile::kWeightRows * static_cast<std::size_t>(op.k / Fp8Tile::kDepth);
  return {op.weight + expert * blocks * Fp8Tile::kWeightBytes, op.weight_scales + expert * blocks};
}

template <class V>
__device__ inline Work work_of_block(const Fp8Gemm& op, int block) {
  const int k_tiles = op.k / Fp8Tile::kDepth, row_tiles = op.row_tiles ? 1 : (op.rows_max + 127) / 128;
  const int tile = block / V::kSplit, column_tile = tile / row_tiles;
  Work w;
  w.rank = block % V::kSplit;
  set_columns<V>(op, column_tile, w);
  w.row_tile = tile % row_tiles;
  w.expert = static_cast<int>(blockIdx.y);
  if (op.row_tiles) {
    ptx::wait_for_previous_kernel();
    w.expert = op.row_tiles[blockIdx.y].expert;
    w.row_tile = op.row_tiles[blockIdx.y].row_tile;
  }
  w.k_begin = k_tiles * w.rank / V::kSplit;
  w.k_end = k_tiles * (w.rank + 1) / V::kSplit;
  if (w.expert >= 0) w.weight = weight_of(op, w.expert);
  return w;
}

__device__ inline const std::uint8_t* weight_tile(const Fp8Gemm& op, const Work& w, int k, int column_block) {
  const std::size_t before = static_cast<std::size_t>(k) * (op.n / Fp8Tile::kWeightRows) + column_block;
  return w.weight.tiles + before * Fp8Tile::kWeightBytes;
}

template <class V>
__device__ inline void feed_weight(Shared<V>& s, const Fp8Gemm& op, const Work& w, int k, int stage) {
  // Gate and up of the same columns are apart, other columns of a block are neighbours.
  constexpr int kPieces = V::kSwiGlu ? 2 : 1, kBytes = V::kColumnBlocks * Fp8Tile::kWeightBytes;
  ptx::expect(&s.full[stage], kBytes);
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
    const std::uint8_t* tile = weight_tile(op, w, k, piece == 0 ? w.column_block : w.second_column_block);
    if (op.rows_max <= 128)
      ptx::bulk_load_once(s.weight[stage][piece], tile, kBytes / kPieces, &s.full[stage]);
    else  // the other row tiles read it as well
      ptx::bulk_load(s.weight[stage][piece], tile, kBytes / kPieces, &s.full[stage]);
  }
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
  if (!op.row_begin) return {before, min(op.rows_max - before, 128)};
  return {op.row_begin[w.expert] + before, min(max(op.row_count[w.expert] - before, 0), 128)};
}

// Of a stage that was used before.
template <class V>
__device__ inline void wait_until_free(Shared<V>& s, int step) {
  ptx::wait(&s.free[step % V::kStages], (step / V::kStages - 1) & 1);
}

// The warp that loads weights, and rows if there is no other. One lane does, but all of them know what: then the
// compiler keeps that in the warp's own registers.
template <class V>
__device__ inline void feed(Shared<V>& s, const Fp8Gemm& op, const Work& w) {
  const int count = w.k_end - w.k_begin, early = min(count, V::kStages);
  if (ptx::elect_lane())
    for (int i = 0; i < early; ++i) {
      feed_weight<V>(s, op, w, w.k_begin + i, i);
      if (V::kFeeders == 2) ptx::arrive(&s.full[i]);
    }
  ptx::wait_for_previous_kernel();
  const RowRange rows = rows_of_block(op, w);
  if (rows.count == 0) {  // what was fetched early must have arrived before the block may end
    if (V::kFeeders == 1 && ptx::elect_lane())
      for (int i = 0; i < early; ++i) ptx::arrive(&s.full[i]);
    for (int i = 0; i < early; ++i) ptx::wait(&s.full[i], 0);
    return;
  }
  for (int i = V::kFeeders == 1 ? 0 : early; i < count; ++i) {
    const int stage = i % V::kStages;
    if (i >= V::kStages) wait_until_free(s, i);
    if (!ptx::elect_lane()) continue;
    if (i >= V::kStages) feed_weight<V>(s, op, w, w.k_begin + i, stage);
    if (V::kFeeders == 1)
      feed_x<V>(s, op, rows.first, rows.blocks(), w.k_begin + i, stage);
    else
      ptx::arrive(&s.full[stage]);
  }
}

template <class V>
__device__ inline void feed_rows(Shared<V>& s, const Fp8Gemm& op, const Work& w) {
  const int count = w.k_end - w.k_begin;
  ptx::wait_for_previous_kernel();
  const RowRange rows = rows_of_block(op, w);
  if (rows.count == 0) {
    if (ptx::elect_lane())
      for (int i = 0; i < min(count, V::kStages); ++i) ptx::arrive(&s.full[i]);
    return;
  }
  for (int i = 0; i < count; ++i) {
    if (i >= V::kStages) wait_until_free(s, i);
    if (ptx::elect_lane()) feed_x<V>(s, op, rows.first, rows.blocks(), w.k_begin + i, i % V::kStages);
  }
}

}  // namespace tandem::cuda::fp8_gemm
