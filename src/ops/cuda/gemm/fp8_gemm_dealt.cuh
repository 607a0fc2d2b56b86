// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The FP8 product of more tiles than there are multiprocessors: one block a multiprocessor, tiles dealt in rounds.
//
// Blocks work in pairs, clusters of two: on two tiles of rows with the same columns, of whose weight each block loads
// half for both, so that it is read from L2 once for 256 rows; or, with an expert's last odd tile of rows, on two tiles
// of columns, each by itself.
//
// What is left over after whole rounds would be a round of its own that keeps few busy. So where most blocks would have
// nothing to do, each of those tiles has an owner, who does the first part of its k after all whole tiles, and one to
// three other parts, which other blocks do before all whole tiles and leave in memory. There they wait until the
// owner's ring has room for them: it adds them up in their order, as if they were further steps of k.
//
// How many tiles there are is known on the device only: rows of experts are counted by the kernel before.
#pragma once

#include "ops/cuda/gemm/fp8_gemm.cuh"
#include "ops/cuda/ptx/gpu_word.cuh"

namespace tandem::cuda::fp8_gemm {

inline constexpr int kOtherPartsMax = 3, kStagesMax = 6;
// A part is float4 [16 · kColumnBlocks][256 threads]; it passes through the ring, where a stage's weight is, in so many
// steps.
inline constexpr int kStepsOfPart = 4, kThreadsOfSums = 128 * kRowBlocks;
// What adding a part takes, and leaving one, in steps of k.
inline constexpr int kAddingSteps = 2, kLeavingSteps = 3;
// A counter for each block's left-over tile, then parts. There are fewer of them than multiprocessors.
static_assert(kGemmMultiprocessors * sizeof(unsigned) <= Fp8Gemm::kCounterBytes);
static_assert(Fp8Gemm::kCounterBytes + kGemmMultiprocessors * sizeof(float4) * 32 * kThreadsOfSums <=
              Fp8Gemm::kScratchBytes);

// What a block does at a time.
struct Turn {
  Work work;
  RowRange rows;       // none: the other block has a tile, or neither
  bool shares_weight;  // with the other block
  int left, part;      // of a left-over tile: which, and its part of k, of which the owner's is 0; else -1
};

// How pairs of tiles are dealt to pairs of blocks, found once by each block, and the experts.
struct Dealt {
  int rounds, rest;                                               // whole rounds; pairs left over
  int parts;                                                      // of each of those, besides its owner's
  int own_end;                                                    // of owners' parts, in tiles of k
  std::int32_t begin[kDealtExpertsMax], count[kDealtExpertsMax];  // rows
  Fp8Weight weights[kDealtExpertsMax];
  // Found by the warp that feeds, before a turn's first stage is full: the others have no registers for that beside
  // sums. As a turn has a stage at least, it is no more than kStagesMax + 1 of them ahead.
  Turn turns[kStagesMax + 2];
  std::uint64_t other_is_free[kStagesMax];  // barriers: the other block has let a stage go

  __device__ int row_tiles(int expert) const { return (count[expert] + 127) / 128; }
  __device__ Turn& turn(int index) { return turns[index % (kStagesMax + 2)]; }
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

// So that all end at the same time: parts cost more than their share of k. Where k is short, fewer parts or none.
__device__ inline void cut_rest(int k_tiles, Dealt& d) {
  d.own_end = k_tiles;
  for (d.parts = d.rest > 0 ? min(block_pairs() / d.rest - 1, kOtherPartsMax) : 0; d.parts > 0; --d.parts) {
    const int to_share = k_tiles + kLeavingSteps * d.parts - kAddingSteps * d.parts * d.parts;
    const int own = (to_share + (d.parts + 1) / 2) / (d.parts + 1);
    if (own > 0 && k_tiles - own >= d.parts) {
      d.own_end = own;
      return;
    }
  }
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
    cut_rest(op.k / Fp8Tile::kDepth, d);
  }
  __syncthreads();
}

// Which part of a left-over pair this block does: 0 if it is an owner, as the first blocks are; less than 0: none.
__device__ inline int part_of_block(const Dealt& d) {
  const int block = static_cast<int>(blockIdx.x) / 2;
  return block < d.rest * (d.parts + 1) ? block / d.rest : -1;
}

__device__ inline int turns_of_block(const Dealt& d) {
  return d.rounds + (part_of_block(d) >= 0);
}

// The how manyth of all pairs a turn is for; its left, part, and k.
__device__ inline int pair_of_turn(const Fp8Gemm& op, const Dealt& d, int index, Turn& t) {
  const int block = static_cast<int>(blockIdx.x) / 2, k_tiles = op.k / Fp8Tile::kDepth, part = part_of_block(d);
  const int round = part > 0 ? index - 1 : index;
  const bool whole = round >= 0 && round < d.rounds;
  t.left = whole ? -1 : block % d.rest;
  t.part = whole ? -1 : part;
  t.work.k_begin = 0;
  t.work.k_end = whole ? k_tiles : d.own_end;
  if (t.part > 0) {
    t.work.k_begin = d.own_end + (k_tiles - d.own_end) * (part - 1) / d.parts;
    t.work.k_end = d.own_end + (k_tiles - d.own_end) * part / d.parts;
  }
  return whole ? round * block_pairs() + block : d.rounds * block_pairs() + t.left;
}

// An expert has a pair for each two tiles of columns and each tile of rows: of two tiles of rows one for each column.
template <class V>
__device__ inline Turn turn_of_block(const Fp8Gemm& op, const Dealt& d, int index) {
  Turn t;
  Work& w = t.work;
  int pair = pair_of_turn(op, d, index, t);
  w.expert = 0;
  int row_tiles = d.row_tiles(0);
  while (pair >= row_tiles * column_pairs<V>(op)) {
    pair -= row_tiles * column_pairs<V>(op);
    row_tiles = d.row_tiles(++w.expert);
  }
  const int of_column = pair % row_tiles;
  w.rank = static_cast<int>(blockIdx.x) % 2;
  t.shares_weight = (of_column | 1) < row_tiles;
  const int column = pair / row_tiles * 2 + (t.shares_weight ? of_column & 1 : w.rank);
  set_columns<V>(op, column, w);
  w.row_tile = t.shares_weight ? (of_column & ~1) + w.rank : of_column;
  w.weight = d.weights[w.expert];
  t.rows = {d.begin[w.expert] + w.row_tile * 128, min(d.count[w.expert] - w.row_tile * 128, 128)};
  if (column == column_tiles<V>(op)) t.rows.count = 0;
  return t;
}

// The stage of a step, by the warp that feeds. The other block loads into it as well, so both must have let it go.
// Whoever waits for a stage or for this has to wait for all that the other block sends here, so a block may end when
// its threads do.
template <class V>
__device__ inline int free_stage(Shared<V>& s, Dealt& d, int step) {
  const int stage = step % V::kStages;
  if (step >= V::kStages) {
    wait_until_free(s, step);
    if (ptx::elect_lane()) ptx::arrive_in_block(&d.other_is_free[stage], ptx::rank_in_cluster() ^ 1);
    ptx::wait(&d.other_is_free[stage], (step / V::kStages - 1) & 1);
  }
  return stage;
}

// Of this block's tile of a left-over pair: how many warps have left their sums of a part.
__device__ inline unsigned* counter(const Fp8Gemm& op, int left) {
  return reinterpret_cast<unsigned*>(op.scratch) + 2 * left + blockIdx.x % 2;
}

// Where part (from 1) of it lies.
template <class V>
__device__ inline float4* part_memory(const Fp8Gemm& op, const Dealt& d, int left, int part) {
  const int tile = 2 * left + static_cast<int>(blockIdx.x) % 2;
  const std::size_t at = static_cast<std::size_t>(tile * d.parts + part - 1);
  return reinterpret_cast<float4*>(op.scratch + Fp8Gemm::kCounterBytes) + at * (16 * V::kColumnBlocks * kThreadsOfSums);
}

__device__ inline void wait_for_parts(const Fp8Gemm& op, const Dealt& d, int left) {
  unsigned* there = counter(op, left);
  while (ptx::load_acquire_in_gpu(there) < static_cast<unsigned>(d.parts * kThreadsOfSums / 32)) {
  }
  __syncwarp();
  *there = 0;  // for the next product
  ptx::fence_async_proxy_of_memory();
}

// What a block loads of tiles of k.
template <class V>
struct Source {
  static constexpr int kBytes = V::kColumnBlocks * Fp8Tile::kWeightBytes;
  const std::uint8_t* weight;  // at tile 0 of k; of a weight that two blocks share, the half that this one loads
  int row, row_blocks;
  bool shares_weight;

  __device__ Source(const Fp8Gemm& op, const Turn& t)
      : row(t.rows.first), row_blocks(t.rows.blocks()), shares_weight(t.shares_weight) {
    const bool second = shares_weight && t.work.rank == 1;
    weight =
        weight_tile(op, t.work, 0, V::kColumnBlocks == 2 && second ? t.work.second_column_block : t.work.column_block);
    if (V::kColumnBlocks == 1 && second) weight += kBytes / 2;
  }

  __device__ void load(Shared<V>& s, const Fp8Gemm& op, int k, int stage) const {
    constexpr std::uint16_t kBothBlocks = 3;
    std::uint64_t* full = &s.full[stage];
    ptx::expect(full, kBytes);
    const std::uint8_t* from = weight + static_cast<std::size_t>(k) * op.n * Fp8Tile::kDepth;
    if (shares_weight) {
      ptx::bulk_load_to_blocks(s.weight[stage][0] + ptx::rank_in_cluster() * (kBytes / 2), from, kBytes / 2, full,
                               kBothBlocks);
    } else {
      // Gate and up of the same columns are apart, other columns of a block are neighbours.
      constexpr int kPieces = V::kSwiGlu ? 2 : 1;
      ptx::bulk_load(s.weight[stage][0], from, kBytes / kPieces, full);
      if (kPieces == 2) ptx::bulk_load(s.weight[stage][1], from + op.n / 2 * Fp8Tile::kDepth, kBytes / 2, full);
    }
    feed_x<V>(s, op, row, row_blocks, k, stage);
  }
};

template <class V>
__device__ inline void feed_products(Shared<V>& s, const Fp8Gemm& op, Dealt& d, const Turn& t, int& step) {
  const Source<V> source(op, t);
  const int k_end = t.work.k_end;
#pragma unroll 1
  for (int k = t.work.k_begin; k < k_end; ++k, ++step) {
    const int stage = free_stage(s, d, step);
    if (!ptx::elect_lane()) continue;
    if (source.row_blocks > 0)
      source.load(s, op, k, stage);
    else
      ptx::arrive(&s.full[stage]);
  }
}

// The other parts of an owner's left-over tile, each in kStepsOfPart stages.
template <class V>
__device__ inline void feed_parts(Shared<V>& s, const Fp8Gemm& op, Dealt& d, const Turn& t, int& step) {
  constexpr int kBytes = V::kColumnBlocks * Fp8Tile::kWeightBytes;
  static_assert(kStepsOfPart * kBytes == sizeof(float4) * 16 * V::kColumnBlocks * kThreadsOfSums);
  const bool there = t.rows.count > 0;
  if (there) wait_for_parts(op, d, t.left);
  const float4* from = part_memory<V>(op, d, t.left, 1);
  for (int i = 0; i < d.parts * kStepsOfPart; ++i, ++step, from += kBytes / sizeof(float4)) {
    const int stage = free_stage(s, d, step);
    if (!ptx::elect_lane()) continue;
    if (there) {
      ptx::arrive_expecting(&s.full[stage], kBytes);
      ptx::bulk_load(s.weight[stage], from, kBytes, &s.full[stage]);
    } else {
      ptx::arrive(&s.full[stage]);
    }
  }
}

template <class V>
__device__ inline void feed_dealt(Shared<V>& s, const Fp8Gemm& op, Dealt& d) {
  int step = 0;
#pragma unroll 1
  for (int i = 0; i < turns_of_block(d); ++i) {
    const Turn t = turn_of_block<V>(op, d, i);
    if (ptx::elect_lane()) d.turn(i) = t;
    feed_products<V>(s, op, d, t, step);
    if (t.part == 0) feed_parts<V>(s, op, d, t, step);
  }
}

// By each warp of the sums for itself.
template <class V>
__device__ inline void leave_part(const Fp8Gemm& op, const Dealt& d, const Turn& t,
                                  const float (&out)[64 * V::kColumnBlocks]) {
  if (t.rows.count == 0) return;
  float4* to = part_memory<V>(op, d, t.left, t.part);
#pragma unroll
  for (int j = 0; j < 16 * V::kColumnBlocks; ++j)
    __stcg(&to[j * kThreadsOfSums + threadIdx.x],
           make_float4(out[4 * j], out[4 * j + 1], out[4 * j + 2], out[4 * j + 3]));
  ptx::fence_async_proxy_of_memory();
  __syncwarp();
  if (threadIdx.x % 32 == 0) ptx::add_release(counter(op, t.left), 1u);
}

// From the ring, by ordinary reads, after which nothing comes that the other block of the pair loads.
template <class V>
__device__ inline void add_parts(Shared<V>& s, const Dealt& d, int step, float (&out)[64 * V::kColumnBlocks]) {
  constexpr int kCount = 4 * V::kColumnBlocks;  // float4 of a thread in a step
  for (int part = 0; part < d.parts; ++part) {
#pragma unroll
    for (int piece = 0; piece < kStepsOfPart; ++piece, ++step) {
      const int stage = step % V::kStages;
      ptx::wait(&s.full[stage], step / V::kStages & 1);
      const float4* from = reinterpret_cast<const float4*>(s.weight[stage]);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        const float4 x = from[j * kThreadsOfSums + threadIdx.x];
        float* to = &out[4 * (piece * kCount + j)];
        to[0] += x.x, to[1] += x.y, to[2] += x.z, to[3] += x.w;
      }
      ptx::arrive_as_warp(&s.free[stage]);
    }
  }
}

template <class V>
__device__ inline void compute_dealt(Shared<V>& s, const Fp8Gemm& op, Dealt& d, int group) {
  int step = 0;
  for (int i = 0; i < turns_of_block(d); ++i) {
    float out[64 * V::kColumnBlocks];
    ptx::wait(&s.full[step % V::kStages], step / V::kStages & 1);
    const Turn& t = d.turn(i);
    multiply_tile<V>(s, op, t.work, t.rows, step, group, out);
    step += t.work.k_end - t.work.k_begin;
    if (t.part > 0) {
      leave_part<V>(op, d, t, out);
      continue;
    }
    if (t.part == 0) {
      add_parts<V>(s, d, step, out);
      step += d.parts * kStepsOfPart;
    }
    store_tile<V>(op, t.work, t.rows, group, out);
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
    if (ptx::warp() == 4 * kRowBlocks) feed_dealt<V>(s, op, dealt);
  } else {
    ptx::take_registers<V::kMathRegisters>();
    ptx::let_next_kernel_start();
    compute_dealt<V>(s, op, dealt, group);
  }
}

}  // namespace tandem::cuda::fp8_gemm
