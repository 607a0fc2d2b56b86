// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What an FFN GPU does around the products of its experts: find the rows that are theirs, bring them together, and
// add up what belongs to one token.
//
// An FFN server has several GPUs and one rail from each to the attention GPUs. A GPU receives the tokens of its rail
// from every attention server, and from its neighbours in the server those rows of their rails that its experts want.
// Tokens are numbered rail first: attention server by attention server, then the others'.
#pragma once

#include <cstdint>

#include "ops/cuda/split/seal.h"
#include "ops/cuda/stream.h"

namespace tandem::cuda {

// Which experts a GPU has: routed ones first … first + count - 1, and a shared one when shared_rows says for how many
// rows of each attention GPU it computes it. Its rows stand at expert · row_stride.
struct ExpertShare {
  std::int32_t first, count;
  std::int32_t shared_rows;                 // 0: no shared expert; it has the place behind the routed ones
  std::int32_t server_first, server_count;  // the whole server's routed experts
  std::int32_t row_stride;                  // a multiple of 64
  constexpr std::int32_t experts() const { return count + (shared_rows > 0 ? 1 : 0); }
};

// The tokens: [rail] of rail_blocks attention GPUs with rows each, then `others`.
struct ExpertTokens {
  std::int32_t rail_blocks, rows, others, top_k;
  constexpr std::int32_t rail() const { return rail_blocks * rows; }
  constexpr std::int32_t all() const { return rail() + others; }
};

// Everything points to device memory. An expert's rows stand in the order of the tokens, whoever else has some.
struct PlanExpertRows {
  ExpertShare share;
  ExpertTokens tokens;
  const std::int32_t* first_ids;  // [rows, top_k] of the rail's first attention GPU
  const std::int32_t* ids;        // [all - rows, top_k] of the other tokens
  std::int32_t* row_count;        // [experts]
  std::int32_t* source;           // [experts · row_stride] token of each row
  // [rail, top_k + 1] where the rows to be added up for a token are: an expert's row here; kNobody; or at or below
  // kArrived the row kArrived - value of those that the neighbours sent. The last is the shared expert's.
  std::int32_t* place;
  std::int32_t arrived_rows;

  SealCheck hand_over{};

  static constexpr std::int32_t kNobody = -1, kArrived = -2;
};
void run(const PlanExpertRows& op, Stream stream);

// Rows as fp8_tile.h lays them.
struct Fp8RowsView {
  const std::uint8_t* tiles;
  const float* scales;
  std::int64_t rows;  // a multiple of 64
};

// Tokens' rows become experts' rows.
struct GatherExpertRows {
  ExpertShare share;
  ExpertTokens tokens;
  const std::int32_t* row_count;
  const std::int32_t* source;
  const std::uint8_t* rail;  // of each rail block: tiles, then scales behind them
  std::int64_t rail_block_bytes;
  Fp8RowsView arrived;     // of other tokens: row i of an expert's comes from row i of its place here
  std::int64_t rail_rows;  // of a block's tiles, a multiple of 64
  std::uint8_t* tiles;
  float* scales;
  std::int32_t columns;  // a multiple of 128
};
void run(const GatherExpertRows& op, Stream stream);

// out[token] = sum of weight · row over top_k, in their order, + the shared expert's row.
struct CombineExpertRows {
  ExpertTokens tokens;
  const std::int32_t* place;
  const float* first_weights;  // [rows, top_k]
  const float* weights;        // [rail - rows, top_k]
  const std::uint16_t* own;    // bf16 [experts · row_stride, columns]
  const std::uint16_t* arrived;
  std::uint16_t* out;  // bf16 [rail_blocks], out_block_stride elements apart, [rows, columns] each
  std::int64_t out_block_stride;
  std::int32_t columns;  // a multiple of 8

  SealWrite seal{};
};
void run(const CombineExpertRows& op, Stream stream);

}  // namespace tandem::cuda
