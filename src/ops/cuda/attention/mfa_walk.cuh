// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Which pieces of work a thread block of the MFA kernels has, in order, and where their results go. Two ways of saying
// it, for one kernel each of FP8 and bf16: a list that the host made (MfaDecode), or positions of rows (MfaAttention).
#pragma once

#include <cstdint>

#include "ops/cuda/attention/mfa_attention.h"
#include "ops/cuda/attention/mfa_decode.h"
#include "ops/cuda/attention/pieces.cuh"
#include "ops/cuda/bf16.cuh"
#include "ops/cuda/gemm/fp8_store.cuh"
#include "ops/cuda/ptx/bulk_copy.cuh"
#include "ops/cuda/quad.cuh"

namespace tandem::cuda::mfa {

template <class Op>
class Walk;

// One piece a round.
template <>
class Walk<MfaDecode> {
 public:
  __device__ explicit Walk(const MfaDecode& op) : op_(op) {}
  __device__ Piece next() {
    if (round_ >= op_.work.rounds) return {};
    const DecodePiece p = op_.work.pieces[round_++ * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x)];
    return {.unit = p.sequence,
            .table = op_.block_table + static_cast<std::size_t>(p.sequence) * op_.blocks_max,
            .pages = op_.pages,
            .page_begin = p.page_begin,
            .page_end = p.page_end,
            .token_begin = 0,
            .token_end = op_.lengths[p.sequence],
            .partial = p.partial};
  }
  // The first pages of a piece that the kernel before this one has certainly not written.
  __device__ int settled(const Piece& piece) const {
    return op_.cache_is_settled ? (piece.token_end - 1) / MfaPage::kTokens - piece.page_begin : 0;
  }

 private:
  const MfaDecode& op_;
  int round_ = 0;
};

template <>
class Walk<MfaAttention> : public RowWalk<MfaAttention> {
 public:
  using RowWalk::RowWalk;
  // Before this kernel stands the one that makes the queries, and it began when the tokens were in their pages.
  __device__ int settled(const Piece& piece) const { return piece.count(); }
};

// Of a list, a page is read by one piece and leaves the L2 cache first; rows of a prompt read the same ones.
__device__ inline void load_page(void* shared, const std::uint8_t* page, std::uint32_t bytes, std::uint64_t* barrier,
                                 const MfaDecode&) {
  ptx::bulk_load_once(shared, page, bytes, barrier);
}
__device__ inline void load_page(void* shared, const std::uint8_t* page, std::uint32_t bytes, std::uint64_t* barrier,
                                 const MfaAttention&) {
  ptx::bulk_load(shared, page, bytes, barrier);
}

// ---- where a unit's 64 heads of 256 go: a math group's 128 columns at a time. x[4 j …]: of heads row_of_quad() and
// 8 further, columns 8 j + 2 quad and the next of each.

// Of one sequence: bf16, or rows of the product that comes next.
struct DecodedHeads {
  std::uint16_t* at;
  Fp8Rows rows;  // without tiles: bf16
  std::int32_t row;

  __device__ void store_half(int half, const float* x) const {
    if (rows.tiles != nullptr) return quantise_half(half, x);
    const int quad = threadIdx.x & 3;
#pragma unroll
    for (int j = 0; j < 16; j += 4)
#pragma unroll
      for (int r = 0; r < 2; ++r)
        *reinterpret_cast<uint4*>(at + (row_of_quad() + 8 * r) * MfaPage::kDim + 128 * half + 8 * (j + quad)) =
            bf16_of_quad(x + 4 * j, r);
  }

 private:
  // As if they had been stored in bf16 before.
  __device__ void quantise_half(int half, const float* x) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float y[32];
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        const std::uint32_t pair = packed_bf16(x[4 * j + 2 * r], x[4 * j + 2 * r + 1]);
        y[2 * j] = low_of_bf16(pair);
        y[2 * j + 1] = high_of_bf16(pair);
      }
      rows.store_quad(row, 2 * (row_of_quad() + 8 * r) + half, y, true);
    }
  }
};

struct F32Heads {
  float* at;
  std::int32_t heads;  // that are there

  __device__ void store(int head, int column, float a, float b) const {
    if (head >= heads) return;
    float* to = at + head * MfaPage::kDim + column;
    to[0] = a;
    to[1] = b;
  }
  __device__ void store_half(int half, const float* x) const {
#pragma unroll
    for (int j = 0; j < 16; ++j)
#pragma unroll
      for (int r = 0; r < 2; ++r)
        store(row_of_quad() + 8 * r, 128 * half + 8 * j + 2 * (threadIdx.x & 3), x[4 * j + 2 * r],
              x[4 * j + 2 * r + 1]);
  }
};

__device__ inline DecodedHeads output_of(const MfaDecode& op, std::int32_t unit) {
  return {op.out + static_cast<std::size_t>(unit) * MfaPage::kHeads * MfaPage::kDim,
          {op.o_tiles, op.o_scales, op.o_tile_rows},
          unit};
}

__device__ inline F32Heads output_of(const MfaAttention& op, std::int32_t unit) {
  const std::int32_t row = unit / op.units.of_row(), in_row = unit % op.units.of_row();
  return {op.out + row * op.out_stride + op.units.first_head(in_row) * MfaPage::kDim, op.units.heads(in_row)};
}

__device__ inline Partials<uint2> partials_of(const MfaDecode& op, std::int32_t index) {
  return partials_at(op.work.partials, op.work.partial_stats, index);
}
__device__ inline Partials<float4> partials_of(const MfaAttention& op, std::int32_t index) {
  return partials_at(op.partials, op.partial_stats, index);
}

}  // namespace tandem::cuda::mfa
