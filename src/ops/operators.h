// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The operators: one plain struct each. A backend runs it, the reference backend defines it, validate() checks it,
// work() prices it, the tracer prints its name.
//
// Activations are f32 [rows, columns] tensors unless a comment says otherwise; index tensors are i32. A row is one
// token. Every operator computes each row from that row (and the cache) alone, so a row's bits do not depend on its
// neighbours.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "ops/kv_cache.h"
#include "ops/sampling.h"
#include "ops/weight.h"
#include "ops/work.h"
#include "tensor/tensor.h"

namespace tandem {

// out[i] = table row ids[i], widened.
struct EmbedRows {
  Tensor out;           // [rows, hidden]
  const Weight* table;  // [vocab, hidden]
  Tensor ids;           // i32 [rows], each in [0, vocab)
};

// out = x / sqrt(mean(x²) + eps) · weight, over each stretch of width columns by itself: the whole row, or every head.
struct RmsNorm {
  Tensor out;     // [rows, stretches · width]; may be x
  Tensor x;       // [rows, stretches · width]
  Tensor weight;  // f32 [width]
  float eps;
};

// residual += x; out = rms_norm(residual).
struct AddRmsNorm {
  Tensor out;       // [rows, hidden]
  Tensor residual;  // [rows, hidden], updated
  Tensor x;         // [rows, hidden]
  Tensor weight;    // f32 [hidden]
  float eps;
};

// out = x · weightᵀ, summed slice by slice (KSlices).
struct MatMul {
  Tensor out;            // [rows, n]
  Tensor x;              // [rows, k]
  const Weight* weight;  // [n, k]
  KSlices slices;
};

// Rows [offsets[e], offsets[e+1]) of x times experts[e]; an expert may have no rows.
struct GroupedMatMul {
  Tensor out;                              // [rows, n]
  Tensor x;                                // [rows, k]
  std::span<const Weight* const> experts;  // each [n, k]
  std::span<const std::int32_t> offsets;   // experts + 1, from 0 to rows
  KSlices slices;
};

// Rotates the pairs (m, m + pairs) of the first 2·pairs elements of each head by position · inv_freq[m].
struct Rope {
  Tensor x;          // [rows, heads · head_dim], in place
  Tensor positions;  // i32 [rows]
  Tensor inv_freq;   // f32 [pairs], 2·pairs ≤ head_dim
  std::int32_t head_dim;
};

// Stores the key and value of each row at its slot of the cache, rounded to the cache's type.
struct AppendKv {
  Tensor k;      // [rows, kv_heads · k_dim]
  Tensor v;      // [rows, kv_heads · v_dim]
  Tensor slots;  // i32 [rows]
  KvCache* cache;
  std::int32_t layer;
};

// Softmax attention of each row over positions 0 … positions[row] of its sequence. Query head h reads kv head
// h / (heads / kv_heads). The context is walked in blocks of kBlockTokens from position 0, so the order of every sum is
// fixed by the position alone.
struct PagedAttention {
  Tensor out;          // [rows, heads · v_dim]
  Tensor q;            // [rows, heads · k_dim]
  Tensor block_table;  // i32 [sequences, blocks_max]
  Tensor sequences;    // i32 [rows], which row of block_table
  Tensor positions;    // i32 [rows]
  const KvCache* cache;
  std::int32_t layer;
  std::int32_t heads;
  float scale;
  std::int64_t context_tokens;  // sum over rows of positions + 1, which the caller knows; work() needs it
};

// out = silu(gate) · up.
struct SwiGlu {
  Tensor out;      // [rows, width]
  Tensor gate_up;  // [rows, 2·width]: gate, then up
};

// Softmax over all experts, then the top k, heaviest first; a tie goes to the lower id.
struct SelectExperts {
  Tensor expert_ids;      // i32 [rows, k]
  Tensor expert_weights;  // [rows, k]
  Tensor logits;          // [rows, experts]
  bool renormalise;       // the chosen weights are made to sum to 1
};

// out[i] = x[index[i]].
struct GatherRows {
  Tensor out;    // [count, columns]
  Tensor x;      // [rows, columns]
  Tensor index;  // i32 [count]
};

// out[index[i]] = weights[i] · x[i]. Each row of out is named at most once.
struct ScatterScaledRows {
  Tensor out;      // [rows, columns]
  Tensor x;        // [count, columns]
  Tensor index;    // i32 [count]
  Tensor weights;  // [count, 1]
};

// Adds what the FFN workers sent back: out = ((slot 0 + slot 1) + …) + tree(partials). Either side may be absent.
// partials[i] covers slice_counts[i] slices of the width, in order; the tree is that of KSlices.
struct CombineExperts {
  Tensor out;        // [rows, hidden]
  Tensor slot_rows;  // [rows · top_k, hidden], already weighted; no data when nothing was routed
  std::int32_t top_k;
  std::span<const Tensor> partials;  // each [rows, hidden]
  std::span<const std::int32_t> slice_counts;
};

// Chooses one token per row (sampling.h).
struct Sample {
  Tensor logits;                    // [rows, vocab]
  std::span<const SampleRow> rows;  // as many as logits has
  std::span<SampledToken> out;
};

using Operator = std::variant<EmbedRows, RmsNorm, AddRmsNorm, MatMul, GroupedMatMul, Rope, AppendKv, PagedAttention,
                              SwiGlu, SelectExperts, GatherRows, ScatterScaledRows, CombineExperts, Sample>;

// Checks shapes, types and ranges; a violation is a bug of the caller and stops the program.
void validate(const Operator& op);
Work work(const Operator& op);
std::string_view name(const Operator& op);
// The number of rows the operator works on, for traces.
std::int64_t rows(const Operator& op);

}  // namespace tandem
