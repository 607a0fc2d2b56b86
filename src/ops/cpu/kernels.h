// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the host hands to the vector kernels: plain structs, raw pointers, and one table of functions per instruction
// set.
//
// Every kernels_*.cpp is compiled with flags of its own. Such a file must not instantiate anything with linkage that
// other files have too (std:: templates, inline functions of ours): the linker keeps one copy, perhaps the one with
// instructions the machine lacks. Hence no standard types here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace tandem::cpu {

// Weights are cut into panels of this many output columns; vector lanes run over the columns of a panel.
inline constexpr int kPanelColumns = 32;
// Rows that share the sums of a panel in the scratch: enough to hide unpacking, little enough for the L1 and L2 caches.
inline constexpr int kRowBlock = 64;
// Steps of k that are widened to f32 at a time when many rows share a panel: 256 · 32 · 4 bytes = 32 KiB.
inline constexpr int kWidenedSteps = 256;
// Partial sums that a tree over eight slices keeps at once.
inline constexpr int kSliceLevels = 4;
inline constexpr std::int64_t kProductScratchFloats =
    static_cast<std::int64_t>(kWidenedSteps) * kPanelColumns +
    static_cast<std::int64_t>(kSliceLevels) * kRowBlock * kPanelColumns;

// Consecutive panels of one segment times some rows: one thread's part of a product.
struct ProductShare {
  DType dtype;
  const std::byte* panels;  // the first panel
  std::int64_t panel_bytes;
  std::int64_t columns;        // real ones, counted from the first panel's; the last panel may have fewer than 32
  const std::int32_t* bounds;  // of slices along k, slices + 1
  int slices;
  const float* x;  // [rows, k]
  std::int64_t x_stride;
  float* out;  // [rows, columns]
  std::int64_t out_stride;
  std::int64_t rows;
  float* scratch;  // kProductScratchFloats, 64-byte aligned
};

// Rows rounded to int8 (ops/int8_rows.h), for products that take the same steps for some rows at once: the rows of a
// tile lie together, for each block of 32 columns
//   int8 codes[rows][32], of every eight columns first 0, 2, 4, 6, then 1, 3, 5, 7, which is how nibbles come out of
//   words f32 scale[rows], f32 scale · sum of codes[rows], i32 -sum[rows], then of the first and of the second half of
//   columns
// Tiles have sixteen rows; the last ones eight, four, two and one, as it goes.
inline constexpr int kRoundedBlock = 32;
inline constexpr int kRoundedBlockBytes = kRoundedBlock + 5 * 4;  // of one row
inline constexpr int kRoundedTileRows = 16;

// One row's place among those that lie together.
struct RowPlace {
  std::byte* tile;
  int rows;  // of the tile
  int row;
};

// Rows cut into terms, for AMX, whose products take bf16 and give f32: an f32 is the sum of three bf16 numbers, each
// the upper half of what is left, so a weight in bf16 is multiplied as exactly as f32 does it. Rows of a group lie
// together:
//   bf16 [blocks of 32 columns][3 terms, the smallest first][rows][32]
// Each slice of columns begins a block, and zeros fill its last one, so that its sum is the same wherever the slice is.
// Groups have sixteen rows, the last one what is left.
inline constexpr int kTermBlock = 32;
inline constexpr int kTerms = 3;
inline constexpr int kTermGroupRows = 16;
inline constexpr int kTermBlockBytes = kTerms * kTermBlock * 2;  // of one row
constexpr std::int64_t term_blocks(std::int64_t columns) {
  return (columns + kTermBlock - 1) / kTermBlock;
}

// As ProductShare, with x in another form: rounded, for a dtype of blocks of integers, or in terms.
struct MadeShare {
  DType dtype;
  const std::byte* panels;
  std::int64_t panel_bytes;
  std::int64_t columns;
  const std::int32_t* bounds;
  int slices;
  const std::byte* x;   // of the first row, which begins a tile or group
  std::int64_t blocks;  // of a row
  float* out;
  std::int64_t out_stride;
  std::int64_t rows;
  float* scratch;  // kProductScratchFloats, 64-byte aligned
};

// Queries that share one kv head of one sequence. K of a block is [k_dim, 64 tokens], V is [64 tokens, v_stride]; where
// values are in the keys, v is both, [64 tokens, v_stride] with the key in each row.
inline constexpr int kQueriesMax = 32;
inline constexpr int kTokensPerBlock = 64;

struct AttentionShare {
  int queries;                        // at most kQueriesMax
  const float* q[kQueriesMax];        // [k_dim] each
  float* out[kQueriesMax];            // [v_dim] each
  std::int32_t begin[kQueriesMax];    // the first token each sees
  std::int32_t context[kQueriesMax];  // where what it sees ends, at least begin + 1
  const std::int32_t* blocks;         // the sequence's block table
  const std::byte* k;                 // of this layer and head in block 0; null: in v
  const std::byte* v;
  const std::byte* next;      // what will probably be read after this share
  std::int64_t block_stride;  // bytes
  bool is_f32;                // else bf16
  int k_dim, v_dim, v_padded, v_stride;
  float scale;
  float* scratch;  // attention_scratch_floats, 64-byte aligned
};

// Scores, the outputs so far, and one block of K and V in f32; with values in keys the queries side by side, their
// scores by token, and one block of rows in f32.
constexpr std::int64_t attention_scratch_floats(std::int64_t k_dim, std::int64_t v_padded, std::int64_t v_stride) {
  const std::int64_t block = kTokensPerBlock * (k_dim + v_stride);
  const std::int64_t turned = kQueriesMax * (k_dim + kTokensPerBlock);
  return kQueriesMax * (kTokensPerBlock + v_padded) + block + turned;
}

// The functions of one instruction set.
struct Kernels {
  void (*product)(const ProductShare& share);
  void (*round_row)(const float* x, std::int64_t blocks, const RowPlace& to);
  void (*int8_product)(const MadeShare& share);
  void (*attention)(const AttentionShare& share);
  // out = x / sqrt(mean(x²) + eps) · weight over one row.
  void (*rms_norm)(float* out, const float* x, const float* weight, std::int64_t columns, float eps);
  void (*add)(float* sum, const float* x, std::int64_t columns);  // sum += x
  // limit as in SwiGlu.
  void (*swiglu)(float* out, const float* gate, const float* up, std::int64_t columns, float limit);
  void (*exponential)(float* out, const float* x, std::int64_t count);
  // Yardsticks: reads count floats and returns their sum; does fused multiply-adds and returns how many flops.
  float (*read)(const float* data, std::int64_t count);
  double (*multiply_add)(std::int64_t rounds, float* sink);
  // Products of terms, for the types that takes_terms names. Null: there are none, product does all.
  bool (*takes_terms)(DType dtype) = nullptr;
  void (*split_row)(const float* x, const std::int32_t* bounds, int slices, const RowPlace& to) = nullptr;
  void (*term_product)(const MadeShare& share) = nullptr;
};

const Kernels& kernels_baseline();
#if defined(__x86_64__)
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
const Kernels& kernels_avx512_vnni();
const Kernels& kernels_amx();  // the process must have been allowed tiles
#endif

}  // namespace tandem::cpu
