// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A weight on the device: its parts as segments along the output columns, each row-major [columns, k] in the type it
// was stored in. Rows are padded with zeros to whole steps of 32 values, so that a step is always there to be read, and
// begin on 16 bytes. Quantised types keep values and scales apart: the values of a step in order (4 bits: the lower
// nibble is the first of two), the scales as half [columns, k / 32] (q4_1: scale and minimum).
//
// What the tensor cores read from shared memory lies in tiles instead, all of a weight in one segment, which every
// kernel reads: E4M3 in whole blocks of 128 x 128 (gemm/fp8_tile.h), and bf16 (gemm/bf16_tile.h).
#pragma once

#include <cstdint>
#include <vector>

#include "ops/cuda/gemm/bf16_tile.h"
#include "ops/cuda/gemm/fp8_tile.h"
#include "ops/cuda/machine.cuh"
#include "ops/weight.h"

namespace tandem::cuda {

inline constexpr int kStep = 32;       // values of k
inline constexpr int kLaneValues = 8;  // of a step, that one of four lanes holds
inline constexpr int kSegmentsMax = 8;

enum class Store : int { kF32, kBF16, kF16, kQ8_0, kQ4_0, kQ4_1, kF8Tiles, kBf16Tiles };

struct Segment {
  Store store;
  std::int32_t first, columns;  // output columns [first, first + columns)
  const std::byte* data;
  std::int64_t row_bytes;     // of tiles: of the depth in k of one
  const void* scales;         // half; of E4M3 tiles f32
  std::int32_t scale_blocks;  // of E4M3 tiles: along k
};

struct WeightImage {
  std::int32_t n, k, segments;
  Segment segment[kSegmentsMax];
};

class CudaWeight final : public Weight {
 public:
  // Copies the source to the device. Throws Error{kUnsupported, kInvalidArgument, kOutOfResources}.
  static std::unique_ptr<CudaWeight> pack(const WeightSource& source);

  // The tiles and their scales, where the whole weight is E4M3 in whole blocks; else null.
  const std::uint8_t* tiles() const { return tiles_; }
  const float* tile_scales() const { return tile_scales_; }
  // The tiles where the whole weight is bf16 in tiles, else null.
  const std::byte* bf16_tiles() const { return bf16_tiles_; }
  // In device memory.
  const WeightImage* image() const { return static_cast<const WeightImage*>(image_memory_.data()); }
  // Tiles of so many columns that cover every segment.
  std::int64_t tiles(int columns) const;

 private:
  CudaWeight(std::int64_t n, std::int64_t k, std::size_t bytes, std::vector<Buffer> memory, const WeightImage& image);
  std::vector<Buffer> memory_;
  Buffer image_memory_;
  std::vector<std::int32_t> columns_;  // of each segment
  const std::uint8_t* tiles_ = nullptr;
  const float* tile_scales_ = nullptr;
  const std::byte* bf16_tiles_ = nullptr;
};

inline const CudaWeight& of(const Weight* weight) {
  return static_cast<const CudaWeight&>(*weight);
}

}  // namespace tandem::cuda
