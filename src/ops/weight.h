// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Weight matrices: how a loader describes one, and the packed form a backend keeps.
//
// A backend packs a weight once, at load, into the order its kernels read; the source may be dropped afterwards.
// Packing also fuses: the source is a list of parts stacked along the output axis (q, k and v; gate and up).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tensor/dtype.h"

namespace tandem {

// Factors of an f8_e4m3 matrix: one for each block of 128 rows × 128 columns of the tensor in the file; blocks at its
// edges may be smaller.
inline constexpr std::int64_t kScaleBlock = 128;
struct BlockScales {
  std::vector<float> values;   // [row blocks, column blocks] that a part touches
  std::int64_t first_row = 0;  // of the part, in the first row of blocks
  std::int64_t stride = 0;     // values in a row of blocks

  // Of a source row and a column of the part.
  float at(std::int64_t row, std::int64_t column) const {
    return values[static_cast<std::size_t>((first_row + row) / kScaleBlock * stride + column / kScaleBlock)];
  }
};

// One [rows, k] piece of a matrix as it lies in a file. Rows are row_stride_bytes apart, so that a range of columns
// (which must start and end on a block of the type) is a part too. Nothing is owned.
struct WeightPart {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  std::int64_t rows = 0;
  std::size_t row_stride_bytes = 0;
  // When not empty: packed row i comes from source row row_order[i]. For files that store rotary pairs interleaved.
  std::vector<std::int32_t> row_order;
  BlockScales scales;  // of f8_e4m3, whose columns begin with a block

  std::int64_t source_row(std::int64_t packed_row) const {
    return row_order.empty() ? packed_row : row_order[static_cast<std::size_t>(packed_row)];
  }
  const std::byte* row(std::int64_t source_row) const {
    return data + static_cast<std::size_t>(source_row) * row_stride_bytes;
  }
};

// Widens packed row i of a part to k values, factors applied.
void read_row(const WeightPart& part, std::int64_t packed_row, std::int64_t k, float* out);

// A matrix [n, k] (out features, in features): parts stacked along n, all with the same k.
struct WeightSource {
  std::vector<WeightPart> parts;
  std::int64_t k = 0;

  std::int64_t n() const {
    std::int64_t rows = 0;
    for (const WeightPart& part : parts) rows += part.rows;
    return rows;
  }
};

// Whether all parts are blocks of integers, as Int8MatMul wants them.
bool is_quantised(const WeightSource& source);

// A packed matrix. Immutable; may be read from any number of threads.
class Weight {
 public:
  Weight(std::int64_t n, std::int64_t k, std::size_t bytes) : n_(n), k_(k), bytes_(bytes) {}
  virtual ~Weight() = default;
  Weight(const Weight&) = delete;
  Weight& operator=(const Weight&) = delete;

  std::int64_t n() const { return n_; }         // output features
  std::int64_t k() const { return k_; }         // input features
  std::size_t bytes() const { return bytes_; }  // memory it takes, which is what one pass over it reads

 private:
  std::int64_t n_, k_;
  std::size_t bytes_;
};

// The ranges of k whose partial products are computed apart and then added over a fixed binary tree, so that a product
// whose width is split over several workers has the same bits as one that is not (design, invariant 1).
//   result = tree(slice 0 … count-1),  tree of 4 = (s0 + s1) + (s2 + s3);  empty slices add zero
struct KSlices {
  static constexpr int kCountMax = 8;
  int count = 1;                                     // a power of two
  std::array<std::int32_t, kCountMax + 1> bounds{};  // slice i covers [bounds[i], bounds[i + 1])

  static KSlices whole(std::int64_t k) { return {1, {0, static_cast<std::int32_t>(k)}}; }
};

// Slices first … first+count-1 of the kCountMax slices of a width, which is cut at multiples of granule (a quantisation
// block) as evenly as it goes; bounds are relative to the start of slice first.
KSlices width_slices(std::int64_t width, std::int64_t granule, int first, int count);
// Where slice i of kCountMax begins in a width cut at multiples of granule; i == kCountMax gives the width.
std::int64_t width_slice_begin(std::int64_t width, std::int64_t granule, int i);

}  // namespace tandem
