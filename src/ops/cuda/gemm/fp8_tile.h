// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How operands of the FP8 products lie in memory: tiles of 128 bytes of k that are the shared-memory image WGMMA reads
// (128-byte swizzle), so that a tile is fetched by one plain copy. All thread blocks walk k in step, so k comes first:
// together they read one contiguous stretch of memory, which spreads evenly over its channels.
//   weight       [experts][k / 128][n / 128] tiles of 128 rows, scales f32 [experts][n / 128][k / 128]
//   activations  [k / 128][rows / 64] tiles of 64 rows, scales f32 [k / 128][rows]
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem::cuda {

struct Fp8Tile {
  static constexpr int kDepth = 128;       // of k, one scale
  static constexpr int kWeightRows = 128;  // one scale
  static constexpr int kRows = 64;         // of activations; each row has a scale of its own
  static constexpr int kWeightBytes = kWeightRows * kDepth;
  static constexpr int kBytes = kRows * kDepth;

  // Rows with those that fill the last tile.
  static constexpr std::int64_t whole_tiles(std::int64_t rows) { return (rows + kRows - 1) / kRows * kRows; }
  // Of element k of a row, both inside the tile.
  static constexpr int offset(int row, int k) { return row * kDepth + (((k >> 4) ^ (row & 7)) << 4) + (k & 15); }
};

}  // namespace tandem::cuda
