// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// MLA decode in absorbed form (DeepSeek-V2, arXiv 2405.04434, section 2.1): one new token of each sequence attends to
// its cache of 576 values a token. All 128 heads share it: scores are over 576, outputs over the first 512.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/attention/decode_merge.h"
#include "ops/cuda/attention/decode_schedule.h"
#include "ops/cuda/attention/mla_page.h"
#include "ops/cuda/stream.h"

namespace tandem::cuda {

// Everything points to device memory.
struct MlaDecode {
  static constexpr int kTerms = 1;  // of queries and probabilities

  std::uint16_t* out;               // bf16 [sequences, 128, 512], in the latent's space
  const std::uint8_t* q_tiles;      // [sequences, MlaPage::kQueryBytes], of mla_prepare.h
  const std::uint8_t* pages;        // block b's page begins at b · page_stride
  std::int64_t page_stride;         // bytes, a multiple of 16
  const std::int32_t* block_table;  // [sequences, blocks_max]
  std::int32_t blocks_max;
  const std::int32_t* lengths;  // [sequences], tokens to attend to, the new one included
  float scale;                  // of the scores

  DecodeWork work;  // of a schedule for half as many blocks as there are multiprocessors
};

inline constexpr DecodeMergeShape kMlaMergeShape{.head_groups = 2, .column_groups = 2};
inline constexpr DecodeCosts kMlaCosts{.page_memory = 0.0175,
                                       .page_math = 1.6,
                                       .piece = 4.0,
                                       .merge = 6.0,
                                       .partial = 0.12,
                                       .merge_part = 0.08,
                                       .blocks_for_memory = 60};

void run(const MlaDecode& op, Stream stream);

}  // namespace tandem::cuda
