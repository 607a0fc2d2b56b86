// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bf16_products.cuh"

#include <algorithm>

#include "ops/cuda/cuda_weight.cuh"
#include "ops/cuda/gemm/bf16_gemm.h"
#include "ops/cuda/pieces.cuh"

namespace tandem::cuda {

namespace {

std::int64_t atoms_bytes(std::int64_t rows, std::int64_t k) {
  return Bf16Tile::depths(k) * Bf16Tile::atoms(rows) * Bf16Tile::kTerms * Bf16Tile::kAtomBytes;
}

SplitTerms split_of(const Tensor& x, std::byte* atoms) {
  return {.atoms = atoms,
          .x = x.as<const float>(),
          .x_stride = x.row_stride,
          .rows = static_cast<std::int32_t>(x.rows()),
          .k = static_cast<std::int32_t>(x.shape[1])};
}

Bf16Gemm gemm_of(const SplitTerms& split, const CudaWeight& weight, const KSlices& slices, const Tensor& out) {
  return {.x = split.atoms,
          .rows = split.rows,
          .weight = weight.bf16_tiles(),
          .n = static_cast<std::int32_t>(weight.n()),
          .k = split.k,
          .parts = parts_of(slices),
          .out = out.as<float>(),
          .out_stride = out.row_stride};
}

}  // namespace

bool multiply_bf16(Machine& machine, const MatMul& op) {
  const CudaWeight& weight = of(op.weight);
  if (!weight.bf16_tiles() || !has_parts(op.slices)) return false;
  constexpr std::int64_t kTermsBytesMax = std::int64_t{96} << 20;  // so many rows at once that this holds their terms
  const std::int64_t rows = op.x.rows(), k = op.x.shape[1];
  const std::int64_t at_once = std::min(rows, std::max<std::int64_t>(1, kTermsBytesMax / atoms_bytes(64, k)) * 64);
  std::byte* atoms = machine.workspace(static_cast<std::size_t>(atoms_bytes(at_once, k)));
  for (std::int64_t first = 0; first < rows; first += at_once) {
    const std::int64_t count = std::min(at_once, rows - first);
    const SplitTerms split = split_of(op.x.slice_rows(first, count), atoms);
    run(split, machine.stream);
    run(gemm_of(split, weight, op.slices, op.out.slice_rows(first, count)), bf16_tile_rows(count, false),
        machine.stream);
  }
  return true;
}

bool multiply_bf16(Machine& machine, const GroupedMatMul& op) {
  const auto tiled = [](const Weight* weight) { return of(weight).bf16_tiles() != nullptr; };
  if (!std::ranges::all_of(op.experts, tiled) || !has_parts(op.slices)) return false;
  const auto experts = static_cast<std::int64_t>(op.experts.size());
  const std::int64_t rows = op.x.rows(), bytes = atoms_bytes(rows, op.x.shape[1]);
  const int tile_rows = bf16_tile_rows(divide_up(rows, experts), true);
  const std::int64_t tiles = bf16_row_tiles(rows, experts, tile_rows);
  Pieces pieces(machine.workspace(Pieces::bytes<std::byte>(bytes) + Pieces::bytes<Bf16RowTile>(tiles)));
  SplitTerms split = split_of(op.x, pieces.take<std::byte>(bytes));
  split.offsets = op.offsets.as<const std::int32_t>();
  split.experts = static_cast<std::int32_t>(experts);
  split.tile_rows = tile_rows;
  split.row_tiles = pieces.take<Bf16RowTile>(tiles);
  split.row_tile_count = static_cast<std::int32_t>(tiles);
  run(split, machine.stream);
  Bf16Gemm gemm = gemm_of(split, of(op.experts.front()), op.slices, op.out);
  gemm.weights = machine.bf16_table_of(op.experts);
  gemm.row_tiles = split.row_tiles;
  gemm.row_tile_count = split.row_tile_count;
  run(gemm, tile_rows, machine.stream);
  return true;
}

}  // namespace tandem::cuda
