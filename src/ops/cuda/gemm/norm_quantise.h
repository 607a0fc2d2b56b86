// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Residual add, RMS norm and quantisation in one pass: what stands between the residual stream and FP8 products.
//   residual += deltas, one after the other (in place, f32);  y = residual / sqrt(mean(residual²) + epsilon) · gain;
//   y into fp8_tile.h's tiles
// Or all but the norm's factor, which the product that reads y multiplies by (Fp8AfterNorm): then rows need not wait
// for their sum of squares.
#pragma once

#include <cstdint>

#include "ops/cuda/stream.h"

namespace tandem::cuda {

// Everything points to device memory. The kernel before this one in the stream may write all of it but the gain.
struct NormQuantise {
  float* residual;             // [rows, columns]; null: delta alone is normalised
  const std::uint16_t* delta;  // bf16 [rows, columns], delta_stride apart; null: nothing to add
  std::int64_t delta_stride;   // elements
  std::int32_t deltas = 1;
  std::int64_t delta_pitch = 0;  // elements from one delta to the next
  const float* gain;             // [columns]
  float epsilon;
  std::uint8_t* tiles;
  float* scales;           // [columns / 128][tile_rows]
  std::int64_t tile_rows;  // a multiple of 64, at least rows
  std::int32_t rows;
  std::int32_t columns;             // a multiple of 128, at most kColumnsMax
  std::uint16_t* normed = nullptr;  // y in bf16 as well, [rows, columns]
  float* squares = nullptr;         // [square_parts(columns)][tile_rows]: without the factor; not with normed

  static constexpr std::int32_t kColumnsMax = 8192, kColumnsOfSquare = 1024;
  static constexpr std::int32_t square_parts(std::int32_t columns) {
    return (columns + kColumnsOfSquare - 1) / kColumnsOfSquare;
  }
};
void run(const NormQuantise& op, Stream stream);

}  // namespace tandem::cuda
