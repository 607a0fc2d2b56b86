// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Which pieces of work a thread block of the MFA kernels has, in order, and where their results go. Two ways of saying
// it, for one kernel each of FP8 and bf16: a list that the host made (MfaDecode), or positions of rows (MfaAttention).
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "ops/cuda/attention/mfa_attention.h"
#include "ops/cuda/attention/mfa_decode.h"
#include "ops/cuda/attention/pieces.cuh"
#include "ops/cuda/ptx/bulk_copy.cuh"

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

// ---- where a unit's 64 heads of 256 go

struct Bf16Heads {
  std::uint16_t* at;
  __device__ void store(int head, int column, float a, float b) const {
    *reinterpret_cast<__nv_bfloat162*>(at + head * MfaPage::kDim + column) = __floats2bfloat162_rn(a, b);
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
};

__device__ inline Bf16Heads output_of(const MfaDecode& op, std::int32_t unit) {
  return {op.out + static_cast<std::size_t>(unit) * MfaPage::kHeads * MfaPage::kDim};
}

__device__ inline F32Heads output_of(const MfaAttention& op, std::int32_t unit) {
  const std::int32_t row = unit / op.units.of_row(), in_row = unit % op.units.of_row();
  return {op.out + row * op.out_stride + op.units.first_head(in_row) * MfaPage::kDim, op.units.heads(in_row)};
}

__device__ inline Partials partials_of(const MfaDecode& op, std::int32_t index) {
  return partials_at(op.work.partials, op.work.partial_stats, index);
}
__device__ inline Partials partials_of(const MfaAttention& op, std::int32_t index) {
  return partials_at(op.partials, op.partial_stats, index);
}

}  // namespace tandem::cuda::mfa
