// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The FP8 product of more tiles than there are multiprocessors: one block a multiprocessor, tiles dealt in rounds.
//
// Blocks work in pairs, clusters of two: on two tiles of rows with the same columns, of whose weight each block loads
// half for both, so that it is read from L2 once for 256 rows; or, with an expert's last odd tile of rows, on two tiles
// of columns, each by itself.
//
// What is left over after whole rounds would be a round of its own that keeps few busy. So those tiles are cut along k
// into as many parts as fill the round. Whoever has a tile's first part does that after its whole tiles and adds the
// others', in their order, from memory: they have come before whole tiles, so that nobody waits for them.
//
// How many tiles there are is known on the device only: rows of experts are counted by the kernel before.
#pragma once

#include "ops/cuda/gemm/fp8_gemm.cuh"

namespace tandem::cuda::fp8_gemm {

inline constexpr int kPartsMax = 4, kStagesMax = 6;
// A counter for each block's left-over tile, then float4 [16 · kColumnBlocks][256 threads] for each part but the first.
// As rest · parts <= pairs of blocks, there are at most (1 - 1 / kPartsMax) · kGemmMultiprocessors of them.
static_assert(kGemmMultiprocessors * sizeof(unsigned) <= Fp8Gemm::kCounterBytes);
static_assert(Fp8Gemm::kCounterBytes + kGemmMultiprocessors * (kPartsMax - 1) / kPartsMax * sizeof(float4) * 32 * 256 <=
              Fp8Gemm::kScratchBytes);

// How pairs of tiles are dealt to pairs of blocks, found once by each block, and rows of the experts: what a block does
// next is looked up here again and again, as the registers are the sums'.
struct Dealt {
  int rounds, rest, parts;  // whole rounds; pairs left over and what each of them is cut into
  std::int32_t begin[kDealtExpertsMax], count[kDealtExpertsMax];
  Fp8Weight weights[kDealtExpertsMax];
  std::uint64_t other_is_free[kStagesMax];  // barriers: the other block has let a stage go

  __device__ int row_tiles(int expert) const { return (count[expert] + 127) / 128; }
};

template <class V>
__device__ inline int column_tiles(const Fp8Gemm& op) {
  return op.n / Fp8Tile::kWeightRows / V::kColumnBlocks;
}

// Of columns; the last may have one.
template <class V>
__device__ inline int column_pairs(const Fp8Gemm& op) {
  return (column_tiles<V>(op) + 1) / 2;
}

__device__ inline int block_pairs() {
  return static_cast<int>(gridDim.x) / 2;
}

// All threads of the block.
template <class V>
__device__ inline void deal(const Fp8Gemm& op, Dealt& d) {
  for (int e = static_cast<int>(threadIdx.x); e < op.experts; e += kThreads) d.weights[e] = weight_of(op, e);
  ptx::wait_for_previous_kernel();
  for (int e = static_cast<int>(threadIdx.x); e < op.experts; e += kThreads) {
    d.begin[e] = op.row_begin ? op.row_begin[e] : 0;
    d.count[e] = op.row_begin ? op.row_count[e] : op.rows_max;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int pairs = 0;
    for (int e = 0; e < op.experts; ++e) pairs += d.row_tiles(e);
    pairs *= column_pairs<V>(op);
    d.rounds = pairs / block_pairs();
    d.rest = pairs % block_pairs();
    d.parts = d.rest > 0 ? min(min(kPartsMax, block_pairs() / d.rest), op.k / Fp8Tile::kDepth) : 1;
  }
  __syncthreads();
}

// What a block does in a round; one before the first, or after the last, is for a part of a left-over tile.
struct Turn {
  Work work;
  RowRange rows;          // none: the other block has a tile, or neither
  bool shares_weight;     // with the other block
  int left, part, parts;  // of a left-over tile: which, and its part of k
};

__device__ inline int first_round(const Dealt& d) {
  const int block = static_cast<int>(blockIdx.x) / 2;
  return block >= d.rest && block < d.rest * d.parts ? -1 : 0;
}

__device__ inline int end_of_rounds(const Dealt& d) {
  return static_cast<int>(blockIdx.x) / 2 < d.rest ? d.rounds + 1 : d.rounds;
}

// An expert has a pair for each two tiles of columns and each tile of rows: of two tiles of rows one for each column.
template <class V>
__device__ inline Turn turn_of_round(const Fp8Gemm& op, const Dealt& d, int round) {
  const int block = static_cast<int>(blockIdx.x) / 2;
  const bool whole = round >= 0 && round < d.rounds;
  Turn t;
  t.left = whole ? 0 : block % d.rest;
  t.part = whole ? 0 : block / d.rest;
  t.parts = whole ? 1 : d.parts;
  int pair = whole ? round * block_pairs() + block : d.rounds * block_pairs() + t.left;
  Work& w = t.work;
  w.expert = 0;
  int row_tiles = d.row_tiles(0);
  while (pair >= row_tiles * column_pairs<V>(op)) {
    pair -= row_tiles * column_pairs<V>(op);
    row_tiles = d.row_tiles(++w.expert);
  }
  const int k_tiles = op.k / Fp8Tile::kDepth, of_column = pair % row_tiles;
  w.rank = static_cast<int>(blockIdx.x) % 2;
  t.shares_weight = (of_column | 1) < row_tiles;
  const int column = pair / row_tiles * 2 + (t.shares_weight ? of_column & 1 : w.rank);
  set_columns<V>(op, column, w);
  w.row_tile = t.shares_weight ? (of_column & ~1) + w.rank : of_column;
  w.k_begin = k_tiles * t.part / t.parts;
  w.k_end = k_tiles * (t.part + 1) / t.parts;
  w.weight = d.weights[w.expert];
  t.rows = {d.begin[w.expert] + w.row_tile * 128, min(d.count[w.expert] - w.row_tile * 128, 128)};
  if (column == column_tiles<V>(op)) t.rows.count = 0;
  return t;
}

// This block's half of a weight, to both.
template <class V>
__device__ inline void feed_shared_weight(Shared<V>& s, const Fp8Gemm& op, const Work& w, int k, int stage) {
  constexpr int kBytes = V::kColumnBlocks * Fp8Tile::kWeightBytes;
  constexpr std::uint16_t kBothBlocks = 3;
  ptx::expect(&s.full[stage], kBytes);
  const int column = V::kColumnBlocks == 2 && w.rank == 1 ? w.second_column_block : w.column_block;
  const std::uint8_t* from = weight_tile(op, w, k, column);
  if (V::kColumnBlocks == 1) from += w.rank * (kBytes / 2);
  ptx::bulk_load_to_blocks(s.weight[stage][0] + w.rank * (kBytes / 2), from, kBytes / 2, &s.full[stage], kBothBlocks);
}

// The other block loads into a stage as well, so both must have let it go. Whoever waits for a stage or for this has to
// wait for all that the other block sends here, so a block may end when its threads do.
template <class V>
__device__ inline void wait_for_stage(Shared<V>& s, Dealt& d, int stage, int parity) {
  ptx::wait(&s.free[stage], parity);
  ptx::arrive_in_block(&d.other_is_free[stage], ptx::rank_in_cluster() ^ 1);
  ptx::wait(&d.other_is_free[stage], parity);
}

template <class V>
__device__ inline void feed_dealt(Shared<V>& s, const Fp8Gemm& op, Dealt& d) {
  int step = 0;
  for (int round = first_round(d); round < end_of_rounds(d); ++round) {
    const Turn t = turn_of_round<V>(op, d, round);
    for (int k = t.work.k_begin; k < t.work.k_end; ++k, ++step) {
      const int stage = step % V::kStages;
      if (step >= V::kStages) wait_for_stage(s, d, stage, (step / V::kStages - 1) & 1);
      if (t.rows.count == 0) {
        ptx::arrive(&s.full[stage]);
        continue;
      }
      if (t.shares_weight)
        feed_shared_weight<V>(s, op, t.work, k, stage);
      else
        feed_weight<V>(s, op, t.work, k, stage);
      feed_x<V>(s, op, t.rows.first, t.rows.blocks(), k, stage);
    }
  }
}

// Of the parts that have been given of this block's tile of a left-over pair.
__device__ inline unsigned* counter(const Fp8Gemm& op, int left) {
  return reinterpret_cast<unsigned*>(op.scratch) + 2 * left + blockIdx.x % 2;
}

// Where part (from 1) of it lies.
template <class V>
__device__ inline float4* part_memory(const Fp8Gemm& op, int left, int part, int parts) {
  const int tile = 2 * left + static_cast<int>(blockIdx.x) % 2;
  const std::size_t at = static_cast<std::size_t>(tile * (parts - 1) + part - 1);
  return reinterpret_cast<float4*>(op.scratch + Fp8Gemm::kCounterBytes) + at * (16 * V::kColumnBlocks * 256);
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
  if (threadIdx.x == 0) atomicAdd(counter(op, left), 1u);
}

template <class V>
__device__ inline void add_parts(const Fp8Gemm& op, int left, int parts, float (&out)[64 * V::kColumnBlocks]) {
  if (threadIdx.x == 0) {
    volatile unsigned* given = counter(op, left);
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
  for (int round = first_round(d); round < end_of_rounds(d); ++round) {
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
  static_assert(V::kStages <= kStagesMax && V::kSplit == 1 && !V::kNorm);
  __shared__ Dealt dealt;
  Shared<V>& s = ptx::dynamic_shared<Shared<V>>();
  if (threadIdx.x == 0)
    for (std::uint64_t& barrier : dealt.other_is_free) ptx::init_barrier(&barrier, 1);
  init_ring(s.full, s.free, {.feeders = 1, .readers = 8});  // math warps
  ptx::sync_cluster();
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
