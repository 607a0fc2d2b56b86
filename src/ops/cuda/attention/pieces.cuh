// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a thread block of an attention kernel works on, one after the other, and how rows are divided into it: the
// operators of single rows (MfaAttention, MlaAttention) find it from positions, on the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "ops/cuda/attention/decode_merge.h"
#include "ops/cuda/bf16.cuh"

namespace tandem::cuda {

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

// The parts that a row is cut into, Op::kPartPages each.
struct RowParts {
  std::int32_t token_begin, token_end, first, end;

  template <class Op>
  __device__ RowParts(const Op& op, std::int32_t row) : token_end(op.positions[row] + 1) {
    constexpr std::int32_t kTokens = Op::kPartPages * kDecodePageTokens;
    token_begin = op.window > 0 && token_end > op.window ? token_end - op.window : 0;
    first = token_begin / kTokens;
    end = (token_end + kTokens - 1) / kTokens;
  }
  __device__ std::int32_t count() const { return end - first; }
};

// All units' first parts, then all second ones, and so on, dealt to blocks in turn: neighbouring blocks often read the
// same pages.
template <class Op>
class RowWalk {
 public:
  __device__ explicit RowWalk(const Op& op)
      : op_(op), units_(op.rows * op.units.of_row()), next_(static_cast<std::int32_t>(blockIdx.x)) {}
  __device__ Piece next() {
    for (; next_ < units_ * op_.parts_max; next_ += static_cast<std::int32_t>(gridDim.x)) {
      const std::int32_t unit = next_ % units_, part = next_ / units_, row = unit / op_.units.of_row();
      const RowParts parts(op_, row);
      if (part < parts.first || part >= parts.end) continue;
      next_ += static_cast<std::int32_t>(gridDim.x);
      return {
          .unit = unit,
          .table = op_.block_table + op_.sequences[row] * op_.table_stride,
          .pages = op_.pages_of(unit % op_.units.of_row()),
          .page_begin = max(part * Op::kPartPages, parts.token_begin / kDecodePageTokens),
          .page_end = min((part + 1) * Op::kPartPages, (parts.token_end + kDecodePageTokens - 1) / kDecodePageTokens),
          .token_begin = parts.token_begin,
          .token_end = parts.token_end,
          .partial = parts.count() == 1 ? -1 : unit * op_.parts_max + part - parts.first};
    }
    return {};
  }

 private:
  const Op& op_;
  const std::int32_t units_;
  std::int32_t next_;
};

// Where a partial result goes: 16,384 values, [32][128 threads] of four, as the registers have them, and pairs of
// maximum and sum for 64 rows of the tensor cores. Four values are a float4, or, for an output in bf16, bf16 in a
// uint2.
template <class Four>
struct Partials {
  Four* values;
  float2* stats;  // [64]

  // The thread's j-th four.
  __device__ void store(int j, const float* x) const {
    Four& to = values[j * 128 + static_cast<int>(threadIdx.x) % 128];
    if constexpr (std::is_same_v<Four, float4>)
      to = make_float4(x[0], x[1], x[2], x[3]);
    else
      to = make_uint2(packed_bf16(x[0], x[1]), packed_bf16(x[2], x[3]));
  }
};

template <class T>
__device__ inline auto partials_at(T* values, float* stats, std::int32_t index) {
  using Four = std::conditional_t<std::is_same_v<T, float>, float4, uint2>;
  return Partials<Four>{reinterpret_cast<Four*>(values + static_cast<std::size_t>(index) * kDecodePartialValues),
                        reinterpret_cast<float2*>(stats + static_cast<std::size_t>(index) * kDecodePartialStatsFloats)};
}

}  // namespace tandem::cuda
