// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Attention of single rows over MLA pages, in absorbed form: rows of any sequences at any positions, so decode and
// prefill alike, by the kernel of mla_decode.h. It is to MLA what mfa_attention.h is to MFA: parts of kPartPages from
// position 0, dealt on the device, merged in order.
//
// Queries and probabilities are two bf16 terms each, so that over bf16 pages what is computed agrees with f32. A tile
// of 64 rows has both terms of 32 heads, eight heads' leading terms and then their second ones in turn: one thread has
// both terms' scores and both terms' outputs, and adds them up.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/attention/decode_merge.h"
#include "ops/cuda/attention/mla_page.h"
#include "ops/cuda/stream.h"

namespace tandem::cuda {

// How the heads of a row are divided into units, a tile of queries each.
struct MlaUnits {
  static constexpr std::int32_t kHeads = 32;

  std::int32_t all_heads = 128;

  constexpr std::int32_t of_row() const { return (all_heads + kHeads - 1) / kHeads; }
  constexpr std::int32_t first_head(std::int32_t unit) const { return unit * kHeads; }
  constexpr std::int32_t heads(std::int32_t unit) const {
    const std::int32_t rest = all_heads - unit * kHeads;
    return rest < kHeads ? rest : kHeads;
  }
  // The row of a head's leading term in its tile; the second is kTermRows on.
  static constexpr int kTermRows = 8;
  static constexpr int row(int head) { return head / kTermRows * 2 * kTermRows + head % kTermRows; }
};

// Everything points to device memory.
struct MlaAttention {
  static constexpr std::int32_t kPartPages = 16;
  static constexpr int kTerms = 2;

  MlaUnits units;
  float* out;  // [rows, heads · 512], in the latent's space
  std::int64_t out_stride;
  const std::uint8_t* q_tiles;  // [rows, units, MlaPage::kBytes]
  const std::uint8_t* pages;    // of the layer; block b's begins at b · page_stride
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
  // What rows of several parts need: [rows · units · parts_max] times 32 · 512, and times 64 pairs of maximum (base 2)
  // and sum; null where parts_max is 1.
  float *partials, *partial_stats;

  constexpr const std::uint8_t* pages_of(std::int32_t) const { return pages; }  // all heads share them
};
void run(const MlaAttention& op, Stream stream);

// Floats of partials and partial_stats together for one part of a unit.
inline constexpr std::size_t kMlaPartFloats = kDecodePartialValues + kDecodePartialStatsFloats;

// Absorbed queries of rows into tiles.
struct MlaQueries {
  MlaUnits units;
  std::uint8_t* tiles;  // [rows, units, MlaPage::kBytes]; heads that are not there are zero
  const float* q;       // [rows, heads · 576]
  std::int64_t q_stride;
  std::int32_t rows;
};
void run(const MlaQueries& op, Stream stream);

// Latents and rotated keys of tokens into their pages.
struct MlaAppend {
  std::uint8_t* pages;  // as MlaAttention has them
  std::int64_t page_stride;
  const float* latent;  // [rows, 576]: the latent, then the rotated key
  std::int64_t latent_stride;
  const std::int32_t* slots;  // [rows], block · 64 + offset
  std::int32_t rows;
};
void run(const MlaAppend& op, Stream stream);

}  // namespace tandem::cuda
