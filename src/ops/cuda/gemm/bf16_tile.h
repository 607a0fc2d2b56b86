// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How operands of the bf16 products lie in memory: 128 bytes of k to a row, eight rows to an atom, which is the
// shared-memory image WGMMA reads (128-byte swizzle), so that a tile is fetched by one plain copy. k comes first:
// thread blocks walk it in step and so read one contiguous stretch of memory together.
//   weight       [k / 64][n / 128] tiles of 128 rows; rows and k past the end are zero
//   activations  [k / 64][rows / 8][terms] atoms of 8 rows; an f32 is the sum of its bf16 terms (terms.cuh)
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem::cuda {

struct Bf16Tile {
  static constexpr int kDepth = 64;        // of k
  static constexpr int kWeightRows = 128;  // of a weight, so columns of the result
  static constexpr int kAtomRows = 8;      // of activations
  static constexpr int kTerms = 3;         // that hold an f32
  static constexpr int kRowBytes = 2 * kDepth;
  static constexpr int kWeightBytes = kWeightRows * kRowBytes;
  static constexpr int kAtomBytes = kAtomRows * kRowBytes;

  static constexpr std::int64_t tiles(std::int64_t n) { return (n + kWeightRows - 1) / kWeightRows; }
  static constexpr std::int64_t depths(std::int64_t k) { return (k + kDepth - 1) / kDepth; }
  static constexpr std::int64_t atoms(std::int64_t rows) { return (rows + kAtomRows - 1) / kAtomRows; }
  // In bytes, of element k of a row, both inside the tile.
  static constexpr int offset(int row, int k) { return row * kRowBytes + (((k >> 3) ^ (row & 7)) << 4) + 2 * (k & 7); }
};

}  // namespace tandem::cuda
