// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Which pieces of work a thread block of the MFA kernels has, in order, and where their results go. Two ways of saying
// it, for one kernel each of FP8 and bf16: a list that the host made (MfaDecode), or positions of rows (MfaAttention).
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "ops/cuda/attention/mfa_attention.h"
#include "ops/cuda/attention/mfa_decode.h"
#include "ops/cuda/ptx/bulk_copy.cuh"

namespace tandem::cuda::mfa {

// Neighbouring pages that one unit of queries attends to.
struct Piece {
  std::int32_t unit = 0;      // whose queries and output
  const std::int32_t* table;  // the blocks of its sequence
  const std::uint8_t* pages;  // block b's page begins at b · page_stride
  std::int32_t page_begin = 0, page_end = 0;
  std::int32_t token_begin, token_end;  // of the sequence, that count
  std::int32_t partial = -1;            // where its unnormalised result goes; -1: it is whole and writes the output

  __device__ bool has_pages() const { return page_begin < page_end; }
  __device__ int count() const { return page_end - page_begin; }
};

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

// The parts that a row is cut into.
struct RowParts {
  std::int32_t token_begin, token_end, first, end;

  __device__ RowParts(const MfaAttention& op, std::int32_t row) : token_end(op.positions[row] + 1) {
    constexpr std::int32_t kTokens = MfaAttention::kPartPages * MfaPage::kTokens;
    token_begin = op.window > 0 && token_end > op.window ? token_end - op.window : 0;
    first = token_begin / kTokens;
    end = (token_end + kTokens - 1) / kTokens;
  }
  __device__ std::int32_t count() const { return end - first; }
};

// All units' first parts, then all second ones, and so on, dealt to blocks in turn: neighbouring blocks often read the
// same pages.
template <>
class Walk<MfaAttention> {
 public:
  __device__ explicit Walk(const MfaAttention& op)
      : op_(op), units_(op.rows * op.units.of_row()), next_(static_cast<std::int32_t>(blockIdx.x)) {}
  __device__ Piece next() {
    for (; next_ < units_ * op_.parts_max; next_ += static_cast<std::int32_t>(gridDim.x)) {
      const std::int32_t unit = next_ % units_, part = next_ / units_, row = unit / op_.units.of_row();
      const RowParts parts(op_, row);
      if (part < parts.first || part >= parts.end) continue;
      next_ += static_cast<std::int32_t>(gridDim.x);
      return {.unit = unit,
              .table = op_.block_table + op_.sequences[row] * op_.table_stride,
              .pages = op_.pages + op_.units.kv_head(unit % op_.units.of_row()) * mfa_page_bytes(op_.cache),
              .page_begin = max(part * MfaAttention::kPartPages, parts.token_begin / MfaPage::kTokens),
              .page_end = min((part + 1) * MfaAttention::kPartPages,
                              (parts.token_end + MfaPage::kTokens - 1) / MfaPage::kTokens),
              .token_begin = parts.token_begin,
              .token_end = parts.token_end,
              .partial = parts.count() == 1 ? -1 : unit * op_.parts_max + part - parts.first};
    }
    return {};
  }
  // Before this kernel stands the one that makes the queries, and it began when the tokens were in their pages.
  __device__ int settled(const Piece& piece) const { return piece.count(); }

 private:
  const MfaAttention& op_;
  const std::int32_t units_;
  std::int32_t next_;
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

// ---- where partial results go: 64 heads by 256, float4 [32][128 threads] as the registers have them, and pairs of
// maximum and sum

struct Partials {
  float4* values;
  float2* stats;  // [64]
};

__device__ inline Partials partials_at(float* values, float* stats, std::int32_t index) {
  return {reinterpret_cast<float4*>(values + static_cast<std::size_t>(index) * kDecodePartialFloats),
          reinterpret_cast<float2*>(stats + static_cast<std::size_t>(index) * kDecodePartialStatsFloats)};
}
__device__ inline Partials partials_of(const MfaDecode& op, std::int32_t index) {
  return partials_at(op.work.partials, op.work.partial_stats, index);
}
__device__ inline Partials partials_of(const MfaAttention& op, std::int32_t index) {
  return partials_at(op.partials, op.partial_stats, index);
}

}  // namespace tandem::cuda::mfa
