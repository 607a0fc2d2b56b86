// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Adds up the partial results of sequences that a schedule cut. A partial result consists of units, 64 heads by 256
// columns each, as the decode kernels' registers have them (pieces.cuh), in bf16 as the output is. That adds about the
// output's own rounding where there are two parts (errors 1.8e-3 → 2.1e-3), and less where there are more.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/attention/decode_schedule.h"
#include "ops/cuda/stream.h"

namespace tandem::cuda {

// Of a sequence's output: [64 · head_groups, 256 · column_groups].
struct DecodeMergeShape {
  std::int32_t head_groups = 1, column_groups = 1;
  constexpr int units() const { return head_groups * column_groups; }
};

// Everything points to device memory.
struct DecodeMerging {
  std::uint16_t* out;  // bf16 [sequences, 64 · head_groups, 256 · column_groups]
  DecodeWork work;     // its partial results: [partials, head_groups, column_groups, 64 · 256], not normalised
  DecodeMergeShape shape;
};

inline constexpr std::size_t kDecodePartialValues = 64 * 256;
inline constexpr std::size_t kDecodePartialStatsFloats = 64 * 2;

void run(const DecodeMerging& op, Stream stream);

}  // namespace tandem::cuda
