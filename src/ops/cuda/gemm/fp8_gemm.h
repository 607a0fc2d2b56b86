// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Products of FP8 activations (a scale per row and 128 of k) with FP8 weights (a scale per 128 x 128), for one weight
// or for experts, each with rows of its own. Operands lie as fp8_tile.h says.
#pragma once

#include <cstdint>
#include <string>

#include "ops/cuda/stream.h"

namespace tandem::cuda {

// Everything points to device memory. Expert e has row_count[e] rows from row_begin[e], a multiple of 64: experts stand
// behind each other (contiguous) or at fixed distances with gaps (masked). An expert may have none.
struct Fp8Gemm {
  const std::uint8_t* x;
  const float* x_scales;
  std::int64_t x_rows;  // of all experts with their gaps, a multiple of 64
  const std::uint8_t* weight;
  const float* weight_scales;
  const std::int32_t* row_begin;  // [experts]
  const std::int32_t* row_count;  // [experts]
  std::int32_t experts;
  std::int32_t rows_max;  // of an expert, known when the launch is recorded
  std::int32_t n, k;      // multiples of 128; k of 128

  // Either bf16 rows …
  std::uint16_t* out;  // [x_rows, n]
  // … or, where the weight's tiles of gate and up alternate: silu(gate) · up as activations of the next product.
  std::uint8_t* hidden;  // n / 2 wide
  float* hidden_scales;  // [n / 256][x_rows]
};

// How the product is cut; chosen by shape on the host.
struct Fp8GemmPlan {
  int tile_columns = 0;  // 128 or 256
  int split = 1;         // thread blocks that share the k of one tile
  int blocks = 0;
  std::string to_string() const;
};
Fp8GemmPlan plan_fp8_gemm(std::int32_t experts, std::int32_t rows_max, std::int32_t n, std::int32_t k, bool swiglu);

void run(const Fp8Gemm& op, Stream stream);

}  // namespace tandem::cuda
