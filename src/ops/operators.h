// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The operators: one plain struct each. A backend runs it, the reference backend defines it, validate() checks it,
// work() prices it, the tracer prints its name.
//
// Activations are f32 [rows, columns] tensors unless a comment says otherwise; index tensors are i32. A row is one
// token. Every operator computes each row from that row (and the cache) alone, so a row's bits do not depend on its
// neighbours; only those of vision towers (at the end) see a whole picture, and nothing else, at once.
#pragma once

#include <concepts>
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
  Tensor offsets;                          // i32 [experts + 1], from 0 to rows
  KSlices slices;
};

// Rotates pair m of the 2·pairs elements from element first of each head on by position · inv_freq[m]. A pair is
// (m, m + pairs), or (2m, 2m + 1) where interleaved.
struct Rope {
  Tensor x;          // [rows, heads · head_dim], in place
  Tensor positions;  // i32 [rows]
  Tensor inv_freq;   // f32 [pairs], first + 2·pairs ≤ head_dim
  std::int32_t head_dim;
  std::int32_t first = 0;
  bool interleaved = false;
  float scale = 1;  // of sine and cosine
};

// Projects the first k elements of each head with the head's own weight; what a head has beyond them passes unchanged.
//   out head = weights[head] · x[0, k), then x[k, …)
struct ProjectHeads {
  Tensor out;                              // [rows, heads · (n + rest)]
  Tensor x;                                // [rows, heads · (k + rest)]
  std::span<const Weight* const> weights;  // one per head, each [n, k]
};

// Each head times the sigmoid of its gate.
struct GateHeads {
  Tensor x;      // [rows, heads · head_dim], in place
  Tensor gates;  // [rows, heads]
};

// Stores the key and value of each row at its slot of the cache, rounded to the cache's type.
struct AppendKv {
  Tensor k;      // [rows, kv_heads · k_dim]
  Tensor v;      // [rows, kv_heads · v_dim]; no data where the values are in the keys
  Tensor slots;  // i32 [rows]
  KvCache* cache;
  std::int32_t layer;
};

// Softmax attention of each row over positions 0 … positions[row] of its sequence, or the last window of these. Query
// head h reads kv head h / (heads / kv_heads). The context is walked in blocks that begin at multiples of kBlockTokens,
// so the order of every sum is fixed by the position alone.
struct PagedAttention {
  Tensor out;          // [rows, heads · v_dim]
  Tensor q;            // [rows, heads · k_dim]
  Tensor block_table;  // i32 [sequences, blocks_max]; what lies before every row's window is not read
  Tensor sequences;    // i32 [rows], which row of block_table
  Tensor positions;    // i32 [rows]
  const KvCache* cache;
  std::int32_t layer;
  std::int32_t heads;
  float scale;
  std::int64_t context_tokens;  // sum over rows of the positions they see, which the caller knows; work() needs it
  std::int32_t window = 0;      // positions that a row sees, its own included; 0: all

  // The first position that a row at this one sees.
  std::int32_t first_seen(std::int32_t position) const {
    return window > 0 && position >= window ? position - window + 1 : 0;
  }
};

// out = silu(gate) · up. With a limit: min(silu(gate), limit) · clamp(up, -limit, limit).
struct SwiGlu {
  Tensor out;       // [rows, width]
  Tensor gate_up;   // [rows, 2·width]: gate, then up
  float limit = 0;  // 0: none
};

enum class RouterScore { kSoftmax, kSigmoid };

// Chooses the top k experts of each row by score + bias, best first; a tie goes to the lower id. The weight of an
// expert is its score without the bias, times scale.
//   softmax   the score is the softmax over all experts; by logits, which is the same order, where there is no bias
//   sigmoid   the score is the sigmoid of the logit
// With groups only the experts of the best groups_kept groups of neighbours are chosen from; a group counts as much as
// the sum of its two best choices.
struct SelectExperts {
  Tensor expert_ids;      // i32 [rows, k]
  Tensor expert_weights;  // [rows, k]
  Tensor logits;          // [rows, experts]
  bool renormalise;       // the chosen weights are made to sum to 1, before scale
  RouterScore score = RouterScore::kSoftmax;
  Tensor bias = {};              // f32 [experts]; no data: none
  std::int32_t groups = 1;       // a divisor of experts
  std::int32_t groups_kept = 1;  // with at least k experts together
  float scale = 1;
};

// out = ids, 0 in place of what is not in [0, count). For memory that somebody else may be writing: each is read once.
struct ClampIds {
  Tensor out;  // i32 [rows, k]
  Tensor ids;  // i32 [rows, k]
  std::int32_t count;
};

// Sorts slots by expert. Slot s is place s % k of row s / k; those whose expert is one of begin … begin + held - 1 are
// grouped by expert and, within one, stay in order.
struct GroupByExpert {
  Tensor rows;            // i32 [count], the row of each grouped slot
  Tensor outputs;         // i32 [count], its place among all grouped slots in order of s
  Tensor weights;         // [count, 1]
  Tensor offsets;         // i32 [held + 1], where each expert's slots begin
  Tensor expert_ids;      // i32 [rows, k]
  Tensor expert_weights;  // [rows, k]
  std::int32_t begin;
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

// Rounds x to E4M3 with one factor for each row and group of 128 columns (f8_rows.h).
struct QuantiseRows {
  Tensor codes;   // f8_e4m3 [rows, columns]
  Tensor scales;  // [rows, columns / 128, rounded up]
  Tensor x;       // [rows, columns]
};

// out = code · scale, which QuantiseRows made.
struct WidenRows {
  Tensor out;     // [rows, columns]
  Tensor codes;   // f8_e4m3 [rows, columns]
  Tensor scales;  // [rows, columns / 128, rounded up]
};

// MatMul of x rounded to E4M3, row by row as QuantiseRows does, in FP8 arithmetic: what QuantiseRows, WidenRows and
// MatMul compute, but for sums that keep fewer bits.
struct Fp8MatMul {
  Tensor out;            // [rows, n]
  Tensor x;              // [rows, k]
  const Weight* weight;  // [n, k], for which the backend has FP8 products
  KSlices slices;
};

// Gated FFNs of the experts that are held, [begin, begin + gate_up.size()), in FP8 arithmetic. For each slot s (place s
// % k of row s / k) with such an expert, in order of s, out has a row
//   weights[s] · down(round(silu(gate(round(x))) · up(round(x))))      round: as QuantiseRows and WidenRows
struct Fp8Experts {
  Tensor out;                              // [count, hidden]
  Tensor x;                                // [rows, hidden]
  Tensor expert_ids;                       // i32 [rows, k]
  Tensor expert_weights;                   // [rows, k]
  std::span<const Weight* const> gate_up;  // each [2·width, hidden]: gate, then up
  std::span<const Weight* const> down;     // each [hidden, width]
  std::int32_t begin;
};

// MatMul of x rounded to eight bits (int8_rows.h), each row and block of 32 columns by itself: what rounding, widening
// and MatMul compute. Only for weights in blocks of integers, whose products with the codes of a block are summed
// exactly.
struct Int8MatMul {
  Tensor out;            // [rows, n]
  Tensor x;              // [rows, k]
  const Weight* weight;  // [n, k], for which the backend has int8 products
  KSlices slices;
};

// GroupedMatMul of x rounded in the same way.
struct Int8GroupedMatMul {
  Tensor out;                              // [rows, n]
  Tensor x;                                // [rows, k]
  std::span<const Weight* const> experts;  // each [n, k], for which the backend has int8 products
  Tensor offsets;                          // i32 [experts + 1], from 0 to rows
  KSlices slices;
};

// Chooses one token per row (sampling.h).
struct Sample {
  Tensor logits;                    // [rows, vocab]
  std::span<const SampleRow> rows;  // as many as logits has
  std::span<SampledToken> out;
};

// sum[i] += x[i]; a single row of x is added to every row (a bias).
struct AddRows {
  Tensor sum;  // [rows, columns], updated
  Tensor x;    // [rows or 1, columns]
};

// residual += (x - mean(x)) / sqrt(variance(x) + eps) · weight + bias, over each row: a norm after its block.
struct AddLayerNorm {
  Tensor residual;  // [rows, columns], updated
  Tensor x;         // [rows, columns]
  Tensor weight;    // f32 [columns]
  Tensor bias;      // f32 [columns]
  float eps;
};

// out = x / (1 + e^(-1.702 x)).
struct QuickGelu {
  Tensor out;  // [rows, columns]; may be x
  Tensor x;    // [rows, columns]
};

// The windows that a convolution sees: row (oy, ox) of out holds x at (oy·stride - padding + ky, ox·stride - padding +
// kx), zero outside, in order of (channel, ky, kx). The convolution is then a product with its weights.
struct Im2Col {
  Tensor out;  // [out_height · out_width, channels · kernel²]
  Tensor x;    // [height · width, channels], row after row
  std::int32_t width;
  std::int32_t kernel;
  std::int32_t stride;
  std::int32_t padding;

  std::int64_t height() const { return x.rows() / width; }
  std::int64_t steps(std::int64_t side) const { return (side + 2 * padding - kernel) / stride + 1; }
};

// Softmax attention of every row over all rows: one picture sees all of itself.
struct FullAttention {
  Tensor out;  // [rows, heads · head_dim]
  Tensor q;    // [rows, heads · head_dim]
  Tensor k;    // [rows, heads · head_dim]
  Tensor v;    // [rows, heads · head_dim]
  std::int32_t heads;
  float scale;
};

using Operator = std::variant<EmbedRows, RmsNorm, AddRmsNorm, MatMul, GroupedMatMul, Rope, ProjectHeads, GateHeads,
                              AppendKv, PagedAttention, SwiGlu, SelectExperts, ClampIds, GroupByExpert, GatherRows,
                              ScatterScaledRows, CombineExperts, Sample, QuantiseRows, WidenRows, Fp8MatMul, Fp8Experts,
                              Int8MatMul, Int8GroupedMatMul, AddRows, AddLayerNorm, QuickGelu, Im2Col, FullAttention>;

// What needs FP8 products of the backend (Backend::has_fp8_products).
template <class Op>
concept Fp8Operator = std::same_as<Op, Fp8MatMul> || std::same_as<Op, Fp8Experts>;

// What needs int8 products of the backend (Backend::has_int8_products).
template <class Op>
concept Int8Operator = std::same_as<Op, Int8MatMul> || std::same_as<Op, Int8GroupedMatMul>;

// Checks shapes, types and ranges; a violation is a bug of the caller and stops the program. Ranges are those of values
// in index tensors, which can be looked at only in host memory.
enum class Ranges { kChecked, kOutOfReach };
void validate(const Operator& op, Ranges ranges = Ranges::kChecked);
Work work(const Operator& op);
std::string_view name(const Operator& op);
// The number of rows the operator works on, for traces.
std::int64_t rows(const Operator& op);

}  // namespace tandem
