// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How the two directions of a hand-over lie in memory, the same on both GPUs. Everything is in one piece, so that one
// copy moves it.
//   to the experts:  FP8 tiles of the rows, their scales, expert ids, weights, seal
//   back:            seal in a header of its own, then bf16 rows of one attention GPU after the other
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/gemm/fp8_tile.h"
#include "ops/cuda/split/seal.h"
#include "slice/slice_shape.h"

namespace tandem {

struct HandOverLayout {
  std::int32_t rows = 0;

  std::int64_t tile_rows() const { return cuda::Fp8Tile::whole_tiles(rows); }
  std::size_t scales_at() const { return static_cast<std::size_t>(tile_rows()) * SliceModel::kHidden; }
  std::size_t ids_at() const {
    return scales_at() + static_cast<std::size_t>(tile_rows()) * (SliceModel::kHidden / 128) * 4;
  }
  std::size_t weights_at() const { return ids_at() + chosen_bytes(); }
  std::size_t seal_at() const { return weights_at() + chosen_bytes(); }
  std::size_t bytes() const { return round_up(seal_at() + sizeof(cuda::Seal)); }

  static constexpr std::size_t kReturnHeader = 256;
  std::size_t return_block_bytes() const { return static_cast<std::size_t>(rows) * SliceModel::kHidden * 2; }
  std::size_t return_bytes(std::int32_t blocks) const {
    return kReturnHeader + static_cast<std::size_t>(blocks) * return_block_bytes();
  }

 private:
  std::size_t chosen_bytes() const { return static_cast<std::size_t>(rows) * SliceModel::kTopK * 4; }
  static std::size_t round_up(std::size_t bytes) { return (bytes + 255) / 256 * 256; }
};

}  // namespace tandem
