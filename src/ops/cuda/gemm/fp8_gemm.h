// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Products of FP8 activations (a scale per row and 128 of k) with FP8 weights (a scale per 128 x 128), for one weight
// or for experts, each with rows of its own. Operands lie as fp8_tile.h says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "ops/cuda/stream.h"

namespace tandem::cuda {

inline constexpr int kGemmMultiprocessors = 132;
inline constexpr int kDealtExpertsMax = 64;

struct Fp8Weight {
  const std::uint8_t* tiles;
  const float* scales;
};

// Rows [row_tile · 128, …) of an expert.
struct Fp8RowTile {
  std::int32_t expert, row_tile;  // expert: none when negative
};

// An RMS norm between two products is done by both. The first writes rows without the norm's factor, y = gain · x, and
// sums of squares; the second multiplies its sums by the factor, 1 / sqrt(mean(x²) + epsilon).
struct Fp8BeforeNorm {
  const float* gain = nullptr;    // [columns]; null: none
  std::int32_t columns = 0;       // the first of a row, a multiple of 128
  std::uint8_t* tiles = nullptr;  // activations of the second product
  float* scales = nullptr;        // [columns / 128][x_rows]
  float* squares = nullptr;       // [columns / 128][x_rows], of x, each of 128 columns
};
struct Fp8AfterNorm {
  const float* squares = nullptr;  // [parts][x_rows], of parts of k; null: none
  std::int32_t parts = 0;
  float epsilon = 0;
};

// Everything points to device memory. Expert e has row_count[e] rows from row_begin[e], a multiple of 64: experts stand
// behind each other (contiguous) or at fixed distances with gaps (masked). An expert may have none.
struct Fp8Gemm {
  const std::uint8_t* x;
  const float* x_scales;
  std::int64_t x_rows;  // of all experts with their gaps, a multiple of 64
  const std::uint8_t* weight;
  const float* weight_scales;
  const std::int32_t* row_begin;  // [experts]; null: one expert has rows 0 … rows_max - 1
  const std::int32_t* row_count;  // [experts]
  std::int32_t experts;
  std::int32_t rows_max;  // of an expert, known when the launch is recorded
  std::int32_t n, k;      // multiples of 128
  // Where rows_max is far more than experts mostly have, what they mostly have. Else 0.
  std::int32_t rows_usual = 0;

  // Where experts are many and few of them have rows: who has some is listed by the kernels before this one, and
  // weights need not stand behind each other. The table itself must not come from the kernel before.
  const Fp8Weight* weights = nullptr;     // [experts]; null: weight and weight_scales
  const Fp8RowTile* row_tiles = nullptr;  // [row_tile_count]; null: every tile of every expert
  std::int32_t row_tile_count = 0;
  // The order of sums depends on n and k alone: a row has the same bits beside any others.
  bool fixed_order = false;

  // Where the order of sums is free and experts are few: lets tiles be dealt out when it is known how many there are.
  // Zeros before the first use, and nobody else's meanwhile. null: none.
  std::byte* scratch = nullptr;
  static constexpr std::size_t kCounterBytes = 1024,
                               kScratchBytes = kCounterBytes + std::size_t{kGemmMultiprocessors} * 128 * 1024;

  Fp8AfterNorm after_norm{};

  // Either rows, of which the first columns may go to before_norm …
  std::uint16_t* out;           // bf16 [x_rows, n]
  float* out_f32 = nullptr;     // or f32
  std::int64_t out_stride = 0;  // of f32 rows
  // … or, where the weight is gate, then up: silu(gate) · up as activations of the next product.
  std::uint8_t* hidden;  // n / 2 wide
  float* hidden_scales;  // [n / 256][x_rows]

  Fp8BeforeNorm before_norm{};

  bool has_norm() const { return before_norm.gain != nullptr || after_norm.squares != nullptr; }
};

// How the product is cut; chosen by shape on the host.
struct Fp8GemmPlan {
  int tile_columns = 0;  // 128 or 256
  int split = 1;         // thread blocks that share the k of one tile
  int blocks = 0;
  bool dealt = false;  // in rounds to one block a multiprocessor, in pairs that share what they load
  std::string to_string() const;
};
Fp8GemmPlan plan_fp8_gemm(std::int32_t experts, std::int32_t rows_max, std::int32_t n, std::int32_t k, bool swiglu);
// The plan of op, which has a fixed order of sums if it asks for one, on a GPU with so many multiprocessors: blocks of
// a dealt product wait for parts of others, so all of them have to be there.
Fp8GemmPlan plan_of(const Fp8Gemm& op, int multiprocessors);

void run(const Fp8Gemm& op, Stream stream);

}  // namespace tandem::cuda
