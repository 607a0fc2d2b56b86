// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>

#include "base/check.h"
#include "ops/cuda/gemm/bf16_gemm.h"
#include "ops/cuda/gemm/bf16_tile.h"

namespace tandem::cuda {

namespace {

constexpr int kLong = 2048;           // of k: from here a slice is cut in four
constexpr int kPartsOfBlock = 4;      // that a thread block can add over their tree
constexpr int kSplitMax = 8;          // blocks of a cluster
constexpr std::int64_t kEnough = 80;  // so many blocks draw the memory's whole bandwidth

}  // namespace

bool has_parts(const KSlices& slices) {
  for (int i = 0; i < slices.count; ++i)
    if (slices.bounds[i] % KParts::kUnit != 0) return false;
  return true;
}

// Whether a slice is cut in four depends on its own length, so that whoever has it cuts it alike; beside a long slice a
// short one is a part and three empty ones, which add nothing.
KParts parts_of(const KSlices& slices) {
  TANDEM_CHECK(has_parts(slices), "slices of k that bf16 products cannot take apart");
  const auto is_long = [&](int i) { return slices.bounds[i + 1] - slices.bounds[i] >= kLong; };
  bool any = false;
  for (int i = 0; i < slices.count; ++i) any = any || is_long(i);
  KParts parts;
  for (int i = 0; i < slices.count; ++i) {
    const std::int32_t length = slices.bounds[i + 1] - slices.bounds[i];
    const std::int32_t begin = slices.bounds[i] / KParts::kUnit;
    const std::int32_t end = begin + (length + KParts::kUnit - 1) / KParts::kUnit;
    const std::int32_t depths = length / Bf16Tile::kDepth;
    parts.bounds[parts.count++] = begin;
    for (int part = 1; any && part < 4; ++part)
      parts.bounds[parts.count++] = is_long(i) ? begin + depths * part / 4 * (Bf16Tile::kDepth / KParts::kUnit) : end;
    parts.bounds[parts.count] = end;
  }
  return parts;
}

int bf16_tile_rows(std::int64_t rows_each, bool experts) {
  const std::int64_t rows = experts ? rows_each + 7 : rows_each;  // the first may be the last of its atom
  int tile = experts ? 16 : 8;
  while (tile < 64 && tile < rows) tile *= 2;
  return tile;
}

std::int64_t bf16_row_tiles(std::int64_t rows, std::int64_t experts, int tile_rows) {
  const std::int64_t with_rows = std::min(rows, experts);
  return std::min(rows, (rows + with_rows * (tile_rows + 6)) / tile_rows);
}

int bf16_split(int parts, std::int64_t tiles) {
  int split = std::max(1, parts / kPartsOfBlock);
  while (split < std::min(parts, kSplitMax) && tiles * split < kEnough) split *= 2;
  return split;
}

}  // namespace tandem::cuda
