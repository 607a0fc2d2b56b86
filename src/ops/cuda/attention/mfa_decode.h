// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// MFA decode: one new token of each sequence attends to its cache. 64 query heads share one K and one V head of 256.
// With an FP8 cache, queries and probabilities are split into two FP8 terms, so only the storage has 8 bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/attention/decode_merge.h"
#include "ops/cuda/attention/decode_schedule.h"
#include "ops/cuda/attention/mfa_page.h"
#include "ops/cuda/stream.h"

namespace tandem::cuda {

// Everything points to device memory.
struct MfaDecode {
  MfaCache cache;
  std::uint16_t* out;               // bf16 [sequences, 64, 256]
  const std::uint8_t* q_tiles;      // [sequences, 2 · 64 · 256], of mfa_prepare.h
  const float* q_scales;            // [sequences, 64]; FP8
  const std::uint8_t* pages;        // block b's page begins at b · page_stride
  std::int64_t page_stride;         // bytes, a multiple of 16
  const std::int32_t* block_table;  // [sequences, blocks_max]
  std::int32_t blocks_max;
  const std::int32_t* lengths;  // [sequences], tokens to attend to, the new one included
  float scale;                  // of the scores

  DecodeWork work;

  // If not null, the output goes into the rows of the product that comes next (gemm/fp8_tile.h), as if it had been
  // stored in bf16 and quantised; out is scratch then.
  std::uint8_t* o_tiles = nullptr;
  float* o_scales = nullptr;     // [128][o_tile_rows]
  std::int64_t o_tile_rows = 0;  // a multiple of 64, at least sequences
  std::int32_t sequences = 0;

  // The kernel before this one in the stream wrote nothing but queries and the newest token of each sequence. Then the
  // first pages are fetched while it still runs.
  bool cache_is_settled;
};

void run(const MfaDecode& op, Stream stream);

}  // namespace tandem::cuda
