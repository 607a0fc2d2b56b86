// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Both ends of a decode step that the CPU is not asked about: the drawn tokens become the next step's rows, and every
// sequence grows by one.
#pragma once

#include <cstdint>

#include "ops/cuda/sampling/sample_rows.h"
#include "ops/cuda/stream.h"

namespace tandem::cuda {

// residual[row] = table[tokens[row].id]. Everything points to device memory.
struct EmbedTokens {
  const SampledRow* tokens;    // [rows]; an id outside of the table counts as 0
  const std::uint16_t* table;  // bf16 [vocab, columns]
  std::int32_t vocab;
  float* residual;             // [rows, columns]
  std::int32_t rows, columns;  // columns: a multiple of 4
};
void run(const EmbedTokens& op, Stream stream);

// A sequence that has length_max tokens goes on with length_min, as if another had taken its place.
struct GrowSequences {
  std::int32_t* lengths;    // [rows], the newest token included
  std::int32_t* positions;  // [rows] of the newest token
  std::int32_t* slots;      // [rows] of the newest token: block · 64 + offset
  const std::int32_t* block_table;
  std::int32_t blocks_max;
  std::int32_t rows, length_min, length_max;
  std::uint32_t* step;  // counts the steps that have ended
};
void run(const GrowSequences& op, Stream stream);

// *step += 1, where nothing grows.
void count_step(std::uint32_t* step, Stream stream);
void set_word(std::uint32_t* word, std::uint32_t value, Stream stream);

}  // namespace tandem::cuda
