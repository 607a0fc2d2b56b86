// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Attention of single rows over MFA pages: rows of any sequences at any positions, so decode and prefill alike, by the
// kernels of mfa_decode.h. With 64 heads on one key head a row fills a tile of the tensor cores by itself.
//
// Who computes what is found on the device, from positions alone: a row's pages are cut into parts of kPartPages from
// position 0, thread blocks take parts in turn, and parts of a row are merged in order. So a row's bits depend neither
// on its neighbours nor on the number of blocks, and a recorded launch serves any positions.
//
// A unit is a row's up to 64 heads that share a key head. Queries come in tiles of mfa_prepare.h, two terms each: FP8
// with the scale of a head, or bf16, of which two terms hold 16 bits; so do probabilities.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/attention/decode_merge.h"
#include "ops/cuda/attention/mfa_page.h"
#include "ops/cuda/stream.h"

namespace tandem::cuda {

// How the query heads of a row are divided into units.
struct MfaUnits {
  static constexpr std::int32_t kHeads = 64;

  std::int32_t kv_heads = 1, group = 64;  // query heads that share a key head

  constexpr std::int32_t of_group() const { return (group + kHeads - 1) / kHeads; }
  constexpr std::int32_t of_row() const { return kv_heads * of_group(); }
  constexpr std::int32_t kv_head(std::int32_t unit) const { return unit / of_group(); }
  constexpr std::int32_t first_head(std::int32_t unit) const {
    return kv_head(unit) * group + unit % of_group() * kHeads;
  }
  constexpr std::int32_t heads(std::int32_t unit) const {
    const std::int32_t rest = group - unit % of_group() * kHeads;
    return rest < kHeads ? rest : kHeads;
  }
};

// Everything points to device memory.
struct MfaAttention {
  static constexpr std::int32_t kPartPages = 16;

  MfaCache cache;
  MfaUnits units;
  float* out;  // [rows, heads · 256]
  std::int64_t out_stride;
  const std::uint8_t* q_tiles;  // [rows, units, 2 · mfa_query_term_bytes]
  const float* q_scales;        // [rows, units, 64]; FP8
  const std::uint8_t* pages;    // of the layer; block b's begin at b · page_stride, one for each key head
  std::int64_t page_stride;     // bytes, a multiple of 16
  const std::int32_t* block_table;
  std::int64_t table_stride;
  const std::int32_t* sequences;  // [rows], which row of block_table
  const std::int32_t* positions;  // [rows]
  std::int32_t rows;
  std::int32_t parts_max;  // of any row
  std::int32_t window;     // positions that a row sees, its own included; 0: all
  float scale;             // of the scores
  std::int32_t blocks;     // of threads, at most
  // What rows of several parts need: [rows · units · parts_max] times 64 · 256, and times 64 pairs of maximum (base 2)
  // and sum; null where parts_max is 1.
  float *partials, *partial_stats;

  // Of a row's unit, in block 0.
  constexpr const std::uint8_t* pages_of(std::int32_t unit) const {
    return pages + units.kv_head(unit) * mfa_page_bytes(cache);
  }
};
void run(const MfaAttention& op, Stream stream);

// Floats of partials and partial_stats together for one part of a unit.
inline constexpr std::size_t kMfaPartFloats = kDecodePartialValues + kDecodePartialStatsFloats;

// Queries of rows into tiles.
struct MfaQueries {
  MfaCache cache;
  MfaUnits units;
  std::uint8_t* tiles;  // [rows, units, 2 · mfa_query_term_bytes]; heads that are not there are zero
  float* scales;        // [rows, units, 64]; FP8
  const float* q;       // [rows, heads · 256]
  std::int64_t q_stride;
  std::int32_t rows;
};
void run(const MfaQueries& op, Stream stream);

// Keys and values of tokens into their pages.
struct MfaAppend {
  MfaCache cache;
  std::int32_t kv_heads;
  std::uint8_t* pages;  // as MfaAttention has them
  std::int64_t page_stride;
  const float *k, *v;  // [rows, kv_heads · 256]
  std::int64_t k_stride, v_stride;
  const std::int32_t* slots;  // [rows], block · 64 + offset
  std::int32_t rows;
};
void run(const MfaAppend& op, Stream stream);

}  // namespace tandem::cuda
