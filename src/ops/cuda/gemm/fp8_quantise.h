// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Into the tiles of fp8_tile.h: activations at run time, weights when they are loaded.
#pragma once

#include <cstdint>

#include "ops/cuda/stream.h"

namespace tandem::cuda {

// Row r of x becomes row r of the tiles; a scale for each 128 columns. Everything points to device memory.
struct QuantiseTiles {
  std::uint8_t* tiles;
  float* scales;  // [columns / 128][tile_rows]
  const void* x;  // f32, or bf16 when bf16 is set: [rows, columns], x_stride elements apart
  bool bf16;
  std::int32_t rows, columns;  // columns a multiple of 128
  std::int64_t tile_rows;      // a multiple of 64, at least rows
  std::int64_t x_stride = 0;   // 0: dense
  // Row i comes from row from[i] of x, and becomes row to[i].
  const std::int32_t *from = nullptr, *to = nullptr;  // null: i itself
};
void run(const QuantiseTiles& op, Stream stream);

// A weight as checkpoints have it: E4M3 [n, k] with f32 scales [n / 128, k / 128].
struct PackFp8Weight {
  std::uint8_t* packed;  // of one expert
  float* packed_scales;
  const std::uint8_t* weight;
  const float* scales;
  std::int32_t n, k;  // multiples of 128
};
void run(const PackFp8Weight& op, Stream stream);

}  // namespace tandem::cuda
