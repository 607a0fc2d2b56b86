// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Products of f32 activations, each cut into three bf16 terms, with bf16 weights: out[rows, n] = x[rows, k] ·
// weight[n, k]ᵀ in f32, for one weight or for experts, each with rows of its own. Operands lie as bf16_tile.h says.
//
// One order of sums for any number of rows: k is cut into parts (KParts), a part is added up in f32 in steps of 256 of
// k, parts are added over a binary tree. Which thread blocks have which parts does not show.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/stream.h"
#include "ops/weight.h"

namespace tandem::cuda {

// The parts of k whose sums are the leaves of a binary tree: the slices of the product, each cut in four where it is
// long, so that few rows still make work for many multiprocessors.
struct KParts {
  static constexpr int kUnit = 32;  // of k
  static constexpr int kCountMax = 4 * KSlices::kCountMax;
  int count = 0;                            // a power of two
  std::int32_t bounds[kCountMax + 1] = {};  // in units; the last may be filled with zeros
};
// Whether slices begin at multiples of KParts::kUnit.
bool has_parts(const KSlices& slices);
KParts parts_of(const KSlices& slices);

// Rows of a tile: [begin, end) of x, of which atom `atom` holds the first.
struct Bf16RowTile {
  std::int32_t expert, atom, begin, end;  // expert: none when negative
};

// Everything points to device memory.
struct Bf16Gemm {
  const std::byte* x;  // terms of rows, atoms(rows) of them
  std::int32_t rows;
  const std::byte* weight;  // tiles
  std::int32_t n, k;
  KParts parts;
  float* out;  // [rows, out_stride]
  std::int64_t out_stride;
  // Of a product of experts: whose rows [offsets[e], offsets[e + 1]) of x are, and where weights are.
  const std::byte* const* weights = nullptr;  // [experts]; null: one weight for all rows
  const Bf16RowTile* row_tiles = nullptr;     // [row_tile_count], as SplitTerms lists them
  std::int32_t row_tile_count = 0;
};

// Rows that a thread block takes at once, by how many a weight has: 8, 16, 32 or 64. Of experts, whose rows begin
// anywhere in an atom, at least 16.
int bf16_tile_rows(std::int64_t rows_each, bool experts);
// At most so many tiles of rows have so many experts together.
std::int64_t bf16_row_tiles(std::int64_t rows, std::int64_t experts, int tile_rows);
// How many thread blocks share the parts of a tile: a power of two, 8 at most.
int bf16_split(int parts, std::int64_t tiles);

void run(const Bf16Gemm& op, int tile_rows, Stream stream);

// Cuts f32 rows into terms, and lists the tiles of rows of experts.
struct SplitTerms {
  std::byte* atoms;  // [depths(k)][atoms(rows)][terms]; rows and k past the end become zero
  const float* x;    // [rows, x_stride]
  std::int64_t x_stride;
  std::int32_t rows, k;
  const std::int32_t* offsets = nullptr;  // [experts + 1]; null: no tiles are listed
  std::int32_t experts = 0;               // 512 at most
  std::int32_t tile_rows = 0;
  Bf16RowTile* row_tiles = nullptr;  // [row_tile_count]
  std::int32_t row_tile_count = 0;
};
void run(const SplitTerms& op, Stream stream);

}  // namespace tandem::cuda
