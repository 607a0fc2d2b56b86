// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Which pieces of work a thread block of the MLA kernel has, in order, and where their results go: a list that the host
// made, with queries in one term (MlaDecode), or positions of rows, with queries in two (MlaAttention).
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "ops/cuda/attention/mla_attention.h"
#include "ops/cuda/attention/mla_decode.h"
#include "ops/cuda/attention/pieces.cuh"

namespace tandem::cuda::mla {

inline constexpr int kHalves = 2;  // of MlaDecode's heads, a unit each

template <class Op>
class Walk;

// One piece a round; two neighbouring blocks have the same ones, a half of the heads each.
template <>
class Walk<MlaDecode> {
 public:
  __device__ explicit Walk(const MlaDecode& op) : op_(op) {}
  __device__ Piece next() {
    if (round_ >= op_.work.rounds) return {};
    const int pairs = static_cast<int>(gridDim.x) / kHalves, half = static_cast<int>(blockIdx.x) % kHalves;
    const DecodePiece p = op_.work.pieces[round_++ * pairs + static_cast<int>(blockIdx.x) / kHalves];
    return {.unit = p.sequence * kHalves + half,
            .table = op_.block_table + static_cast<std::size_t>(p.sequence) * op_.blocks_max,
            .pages = op_.pages,
            .page_begin = p.page_begin,
            .page_end = p.page_end,
            .token_begin = 0,
            .token_end = op_.lengths[p.sequence],
            .partial = p.partial < 0 ? -1 : p.partial * kHalves + half};
  }

 private:
  const MlaDecode& op_;
  int round_ = 0;
};

template <>
class Walk<MlaAttention> : public RowWalk<MlaAttention> {
 public:
  using RowWalk::RowWalk;
};

// Of a unit of MlaDecode: 64 heads by 256 columns of either warpgroup.
__device__ inline Partials<uint2> partials_of(const MlaDecode& op, std::int32_t index, int group) {
  return {partials_at(op.work.partials, op.work.partial_stats, 2 * index + group).values,
          partials_at(op.work.partials, op.work.partial_stats, index).stats};
}
// Of a unit of MlaAttention: 32 heads by 512 columns.
__device__ inline Partials<float4> partials_of(const MlaAttention& op, std::int32_t index) {
  return partials_at(op.partials, op.partial_stats, index);
}

// A head's 512 values; head of the unit.
__device__ inline float* output_of(const MlaAttention& op, std::int32_t unit, int head) {
  const std::int32_t row = unit / op.units.of_row(), in_row = unit % op.units.of_row();
  return op.out + row * op.out_stride + (op.units.first_head(in_row) + head) * MlaPage::kLatent;
}

}  // namespace tandem::cuda::mla
