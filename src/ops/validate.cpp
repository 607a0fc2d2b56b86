// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What each operator demands of its arguments. A violation is a bug of the caller.
#include <algorithm>
#include <cstdint>

#include "base/check.h"
#include "ops/f8_rows.h"
#include "ops/int8_rows.h"
#include "ops/operators.h"

namespace tandem {

namespace {

void need(bool condition, const char* message) {
  TANDEM_CHECK(condition, message);
}

void need_f32(const Tensor& t, std::int64_t rows, std::int64_t columns, const char* message) {
  need(t.dtype == DType::kF32 && t.shape.rank == 2 && t.rows() == rows && t.shape[1] == columns, message);
  need(rows == 0 || columns == 0 || t.data != nullptr, message);
}

void need_i32(const Tensor& t, std::int64_t count, const char* message) {
  need(t.dtype == DType::kI32 && t.shape.rank == 1 && t.shape[0] == count, message);
}

// What the checks of one operator know beside it.
struct Context {
  Ranges ranges;
  bool look() const { return ranges == Ranges::kChecked; }
};

void need_range(const Context& c, const Tensor& t, std::int64_t limit, const char* message) {
  if (!c.look()) return;
  const auto* values = t.as<const std::int32_t>();
  for (std::int64_t i = 0; i < t.shape.elements(); ++i) need(values[i] >= 0 && values[i] < limit, message);
}

void need_slices(const KSlices& s, std::int64_t k) {
  need(s.count >= 1 && s.count <= KSlices::kCountMax && (s.count & (s.count - 1)) == 0,
       "slices: count not a power of two");
  need(s.bounds[0] == 0 && s.bounds[s.count] == k, "slices: they do not cover k");
  for (int i = 0; i < s.count; ++i) need(s.bounds[i] <= s.bounds[i + 1], "slices: not ascending");
}

void check(const Context& c, const EmbedRows& op) {
  need_f32(op.out, op.ids.shape[0], op.table->k(), "embed_rows: out is not f32 [ids, hidden]");
  need_i32(op.ids, op.out.rows(), "embed_rows: ids are not i32 [rows]");
  need_range(c, op.ids, op.table->n(), "embed_rows: id outside the table");
}

void check(const Context&, const RmsNorm& op) {
  need_f32(op.out, op.x.rows(), op.x.shape[1], "rms_norm: out differs from x");
  need(op.weight.dtype == DType::kF32 && op.weight.shape.rank == 1 && op.weight.shape[0] > 0,
       "rms_norm: weight is not f32 [width]");
  need(op.x.shape[1] % op.weight.shape[0] == 0, "rms_norm: columns are not whole stretches of the weight's width");
  need_f32(op.x, op.x.rows(), op.x.shape[1], "rms_norm: x is not f32 [rows, stretches * width]");
}

void check(const Context&, const AddRmsNorm& op) {
  need_f32(op.x, op.x.rows(), op.weight.shape[0], "add_rms_norm: x is not f32 [rows, hidden]");
  need_f32(op.residual, op.x.rows(), op.x.shape[1], "add_rms_norm: residual differs from x");
  need_f32(op.out, op.x.rows(), op.x.shape[1], "add_rms_norm: out differs from x");
}

void check(const Context&, const MatMul& op) {
  need_f32(op.x, op.x.rows(), op.weight->k(), "matmul: x is not f32 [rows, k]");
  need_f32(op.out, op.x.rows(), op.weight->n(), "matmul: out is not f32 [rows, n]");
  need_slices(op.slices, op.weight->k());
}

void check(const Context& c, const GroupedMatMul& op) {
  const auto experts = static_cast<std::int64_t>(op.experts.size());
  need_i32(op.offsets, experts + 1, "grouped_matmul: offsets are not i32 [experts + 1]");
  const auto* offsets = op.offsets.as<const std::int32_t>();
  if (c.look())
    need(offsets[0] == 0 && offsets[experts] == op.x.rows(), "grouped_matmul: offsets do not cover the rows");
  for (std::int64_t e = 0; e < experts; ++e) {
    if (c.look()) need(offsets[e] <= offsets[e + 1], "grouped_matmul: offsets not ascending");
    need_f32(op.x, op.x.rows(), op.experts[e]->k(), "grouped_matmul: x is not f32 [rows, k]");
    need_f32(op.out, op.x.rows(), op.experts[e]->n(), "grouped_matmul: out is not f32 [rows, n]");
    need_slices(op.slices, op.experts[e]->k());
  }
}

void check(const Context&, const Rope& op) {
  need(op.head_dim > 0 && op.x.shape[1] % op.head_dim == 0, "rope: columns are not whole heads");
  need_f32(op.x, op.x.rows(), op.x.shape[1], "rope: x is not f32 [rows, heads * head_dim]");
  need_i32(op.positions, op.x.rows(), "rope: positions are not i32 [rows]");
  need(op.inv_freq.dtype == DType::kF32 && op.first >= 0 && op.first + 2 * op.inv_freq.shape[0] <= op.head_dim,
       "rope: more pairs than the head has");
}

void check(const Context&, const ProjectHeads& op) {
  need(!op.weights.empty(), "project_heads: no heads");
  const auto heads = static_cast<std::int64_t>(op.weights.size());
  need(op.x.shape[1] % heads == 0 && op.out.shape[1] % heads == 0, "project_heads: columns are not whole heads");
  need_f32(op.x, op.x.rows(), op.x.shape[1], "project_heads: x is not f32 [rows, heads * (k + rest)]");
  need_f32(op.out, op.x.rows(), op.out.shape[1], "project_heads: out is not f32 [rows, heads * (n + rest)]");
  const std::int64_t rest = op.x.shape[1] / heads - op.weights.front()->k();
  for (const Weight* weight : op.weights) {
    need(weight->k() == op.weights.front()->k() && weight->n() == op.weights.front()->n(),
         "project_heads: weights of different shapes");
    need(rest >= 0 && op.out.shape[1] / heads == weight->n() + rest, "project_heads: out has other heads than x");
  }
}

void check(const Context&, const GateHeads& op) {
  need(op.gates.shape[1] > 0 && op.x.shape[1] % op.gates.shape[1] == 0, "gate_heads: columns are not whole heads");
  need_f32(op.x, op.x.rows(), op.x.shape[1], "gate_heads: x is not f32 [rows, heads * head_dim]");
  need_f32(op.gates, op.x.rows(), op.gates.shape[1], "gate_heads: gates are not f32 [rows, heads]");
}

void check(const Context& c, const AppendKv& op) {
  const KvSpec& spec = op.cache->spec();
  need_f32(op.k, op.k.rows(), spec.kv_heads * spec.k_dim, "append_kv: k is not f32 [rows, kv_heads * k_dim]");
  if (spec.v_in_k)
    need(!op.v, "append_kv: values of a cache that has them in its keys");
  else
    need_f32(op.v, op.k.rows(), spec.kv_heads * spec.v_dim, "append_kv: v is not f32 [rows, kv_heads * v_dim]");
  need_i32(op.slots, op.k.rows(), "append_kv: slots are not i32 [rows]");
  need_range(c, op.slots, spec.blocks * kBlockTokens, "append_kv: slot outside the cache");
  need(op.layer >= 0 && op.layer < spec.layers, "append_kv: layer outside the cache");
}

void check(const Context& c, const PagedAttention& op) {
  const KvSpec& spec = op.cache->spec();
  const std::int64_t rows = op.q.rows();
  need(op.heads > 0 && op.heads % spec.kv_heads == 0, "paged_attention: heads are no multiple of kv heads");
  need_f32(op.q, rows, op.heads * spec.k_dim, "paged_attention: q is not f32 [rows, heads * k_dim]");
  need_f32(op.out, rows, op.heads * spec.v_dim, "paged_attention: out is not f32 [rows, heads * v_dim]");
  need_i32(op.sequences, rows, "paged_attention: sequences are not i32 [rows]");
  need_i32(op.positions, rows, "paged_attention: positions are not i32 [rows]");
  need(op.block_table.dtype == DType::kI32 && op.block_table.shape.rank == 2,
       "paged_attention: block table is not i32");
  need_range(c, op.sequences, op.block_table.rows(), "paged_attention: sequence outside the block table");
  need_range(c, op.positions, op.block_table.shape[1] * kBlockTokens,
             "paged_attention: position outside the block table");
  need(op.layer >= 0 && op.layer < spec.layers, "paged_attention: layer outside the cache");
  need(op.window >= 0, "paged_attention: a negative window");
  if (!c.look()) return;
  std::int64_t context = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int32_t position = op.positions.as<const std::int32_t>()[r];
    const auto* table = op.block_table.row<const std::int32_t>(op.sequences.as<const std::int32_t>()[r]);
    const std::int32_t first = op.first_seen(position);
    for (std::int32_t b = first / kBlockTokens; b <= position / kBlockTokens; ++b)
      need(table[b] >= 0 && table[b] < spec.blocks, "paged_attention: block outside the cache");
    context += position - first + 1;
  }
  need(context == op.context_tokens, "paged_attention: context_tokens is not the sum of what the rows see");
}

void check(const Context&, const SwiGlu& op) {
  need_f32(op.gate_up, op.out.rows(), 2 * op.out.shape[1], "swiglu: gate_up is not f32 [rows, 2 * width]");
  need_f32(op.out, op.out.rows(), op.out.shape[1], "swiglu: out is not f32 [rows, width]");
}

void check(const Context&, const SelectExperts& op) {
  const std::int64_t rows = op.logits.rows(), k = op.expert_ids.shape[1];
  need_f32(op.logits, rows, op.logits.shape[1], "select_experts: logits are not f32 [rows, experts]");
  need(k >= 1 && k <= op.logits.shape[1], "select_experts: k is not in 1 … experts");
  need(op.expert_ids.dtype == DType::kI32 && op.expert_ids.rows() == rows, "select_experts: ids are not i32 [rows, k]");
  need_f32(op.expert_weights, rows, k, "select_experts: weights are not f32 [rows, k]");
  const std::int64_t experts = op.logits.shape[1];
  need(!op.bias || (op.bias.dtype == DType::kF32 && op.bias.shape.rank == 1 && op.bias.shape[0] == experts),
       "select_experts: bias is not f32 [experts]");
  need(op.groups >= 1 && experts % op.groups == 0, "select_experts: groups are no divisor of the experts");
  need(op.groups_kept >= 1 && op.groups_kept <= op.groups && k <= experts / op.groups * op.groups_kept,
       "select_experts: the groups kept have fewer than k experts");
}

void check(const Context&, const ClampIds& op) {
  need(op.ids.dtype == DType::kI32 && op.ids.is_dense(), "clamp_ids: ids are not dense i32 [rows, k]");
  need(op.out.dtype == DType::kI32 && op.out.is_dense() && op.out.shape == op.ids.shape,
       "clamp_ids: out is not dense i32 [rows, k]");
  need(op.count >= 1, "clamp_ids: there is nothing to name");
}

void check(const Context& c, const GroupByExpert& op) {
  const std::int64_t count = op.rows.shape[0], rows = op.expert_ids.rows(), k = op.expert_ids.shape[1];
  need(op.expert_ids.dtype == DType::kI32 && op.expert_ids.is_dense(),
       "group_by_expert: ids are not dense i32 [rows, k]");
  need_f32(op.expert_weights, rows, k, "group_by_expert: expert weights are not f32 [rows, k]");
  need(op.expert_weights.is_dense(), "group_by_expert: expert weights are not dense");
  need_i32(op.rows, count, "group_by_expert: rows are not i32 [count]");
  need_i32(op.outputs, count, "group_by_expert: outputs are not i32 [count]");
  need_f32(op.weights, count, 1, "group_by_expert: weights are not f32 [count, 1]");
  need(op.offsets.dtype == DType::kI32 && op.offsets.shape.rank == 1 && op.offsets.shape[0] >= 1,
       "group_by_expert: offsets are not i32 [held + 1]");
  if (!c.look()) return;
  const std::int64_t held = op.offsets.shape[0] - 1;
  std::int64_t found = 0;
  for (std::int64_t s = 0; s < rows * k; ++s) {
    const std::int64_t expert = op.expert_ids.as<const std::int32_t>()[s] - op.begin;
    found += expert >= 0 && expert < held;
  }
  need(found == count, "group_by_expert: count is not the number of slots of the experts held");
}

void check(const Context& c, const GatherRows& op) {
  need_f32(op.out, op.index.shape[0], op.x.shape[1], "gather_rows: out is not f32 [count, columns]");
  need_i32(op.index, op.out.rows(), "gather_rows: index is not i32 [count]");
  need_range(c, op.index, op.x.rows(), "gather_rows: index outside x");
}

void check(const Context& c, const ScatterScaledRows& op) {
  need_f32(op.out, op.out.rows(), op.x.shape[1], "scatter_scaled_rows: columns differ");
  need_i32(op.index, op.x.rows(), "scatter_scaled_rows: index is not i32 [count]");
  need_range(c, op.index, op.out.rows(), "scatter_scaled_rows: index outside out");
  need_f32(op.weights, op.x.rows(), 1, "scatter_scaled_rows: weights are not f32 [count, 1]");
}

void check(const Context&, const CombineExperts& op) {
  const std::int64_t rows = op.out.rows(), hidden = op.out.shape[1];
  need(op.slot_rows || !op.partials.empty(), "combine_experts: nothing to add");
  if (op.slot_rows)
    need_f32(op.slot_rows, rows * op.top_k, hidden, "combine_experts: slot rows are not [rows * k, hidden]");
  need(op.partials.size() == op.slice_counts.size(), "combine_experts: one slice count per partial");
  std::int32_t slices = 0;
  for (std::size_t i = 0; i < op.partials.size(); ++i) {
    need_f32(op.partials[i], rows, hidden, "combine_experts: a partial is not [rows, hidden]");
    const std::int32_t count = op.slice_counts[i];
    need(count > 0 && (count & (count - 1)) == 0 && slices % count == 0,
         "combine_experts: a partial is not one subtree");
    slices += count;
  }
  need(op.partials.empty() || slices == KSlices::kCountMax, "combine_experts: partials do not cover the width");
}

void check(const Context&, const Sample& op) {
  need_f32(op.logits, op.logits.rows(), op.logits.shape[1], "sample: logits are not f32 [rows, vocab]");
  need(static_cast<std::int64_t>(op.rows.size()) == op.logits.rows() && op.out.size() == op.rows.size(),
       "sample: one parameter set and one result per row");
}

void need_f8(const Tensor& codes, const Tensor& scales, std::int64_t rows, std::int64_t columns, const char* message) {
  need(codes.dtype == DType::kF8E4M3 && codes.shape.rank == 2 && codes.rows() == rows && codes.shape[1] == columns,
       message);
  need_f32(scales, rows, f8_groups(columns), message);
}

void check(const Context&, const QuantiseRows& op) {
  need_f32(op.x, op.x.rows(), op.x.shape[1], "quantise_rows: x is not f32 [rows, columns]");
  need_f8(op.codes, op.scales, op.x.rows(), op.x.shape[1],
          "quantise_rows: codes are not f8_e4m3 [rows, columns] with f32 scales [rows, groups of 128]");
}

void check(const Context&, const WidenRows& op) {
  need_f32(op.out, op.out.rows(), op.out.shape[1], "widen_rows: out is not f32 [rows, columns]");
  need_f8(op.codes, op.scales, op.out.rows(), op.out.shape[1],
          "widen_rows: codes are not f8_e4m3 [rows, columns] with f32 scales [rows, groups of 128]");
}

void check(const Context&, const Fp8MatMul& op) {
  need_f32(op.x, op.x.rows(), op.weight->k(), "fp8_matmul: x is not f32 [rows, k]");
  need_f32(op.out, op.x.rows(), op.weight->n(), "fp8_matmul: out is not f32 [rows, n]");
  need_slices(op.slices, op.weight->k());
}

void check(const Context& c, const Fp8Experts& op) {
  const auto experts = static_cast<std::int64_t>(op.gate_up.size());
  need(experts > 0 && op.down.size() == op.gate_up.size(), "fp8_experts: no experts, or not as many down as gate_up");
  const std::int64_t rows = op.x.rows(), hidden = op.x.shape[1], width = op.down.front()->k();
  need_f32(op.x, rows, hidden, "fp8_experts: x is not f32 [rows, hidden]");
  need_f32(op.out, op.out.rows(), hidden, "fp8_experts: out is not f32 [count, hidden]");
  need(op.expert_ids.dtype == DType::kI32 && op.expert_ids.shape.rank == 2 && op.expert_ids.rows() == rows,
       "fp8_experts: expert ids are not i32 [rows, k]");
  need_f32(op.expert_weights, rows, op.expert_ids.shape[1], "fp8_experts: expert weights are not f32 [rows, k]");
  for (std::int64_t e = 0; e < experts; ++e) {
    need(op.gate_up[e]->n() == 2 * width && op.gate_up[e]->k() == hidden,
         "fp8_experts: gate_up is not [2·width, hidden]");
    need(op.down[e]->n() == hidden && op.down[e]->k() == width, "fp8_experts: down is not [hidden, width]");
  }
  if (!c.look()) return;
  const auto* ids = op.expert_ids.as<const std::int32_t>();
  need(op.out.rows() == std::count_if(ids, ids + op.expert_ids.shape.elements(),
                                      [&](std::int32_t id) { return id >= op.begin && id < op.begin + experts; }),
       "fp8_experts: out has not a row for each slot whose expert is held");
}

void check(const Context& c, const Int8MatMul& op) {
  check(c, MatMul{op.out, op.x, op.weight, op.slices});
  need(op.weight->k() % kInt8Group == 0, "int8_matmul: k is not whole blocks of 32");
}

void check(const Context& c, const Int8GroupedMatMul& op) {
  check(c, GroupedMatMul{op.out, op.x, op.experts, op.offsets, op.slices});
  for (const Weight* expert : op.experts)
    need(expert->k() % kInt8Group == 0, "int8_grouped_matmul: k is not whole blocks of 32");
}

void check(const Context&, const AddRows& op) {
  need(op.x.rows() == 1 || op.x.rows() == op.sum.rows(), "add_rows: x has neither one row nor as many as the sum");
  need_f32(op.x, op.x.rows(), op.sum.shape[1], "add_rows: x is not f32 [rows or 1, columns]");
  need_f32(op.sum, op.sum.rows(), op.sum.shape[1], "add_rows: sum is not f32 [rows, columns]");
}

void check(const Context&, const AddLayerNorm& op) {
  const std::int64_t columns = op.x.shape[1];
  need_f32(op.x, op.x.rows(), columns, "add_layer_norm: x is not f32 [rows, columns]");
  need_f32(op.residual, op.x.rows(), columns, "add_layer_norm: residual differs from x");
  for (const Tensor* t : {&op.weight, &op.bias})
    need(t->dtype == DType::kF32 && t->shape.rank == 1 && t->shape[0] == columns && columns > 0,
         "add_layer_norm: weight or bias is not f32 [columns]");
}

void check(const Context&, const QuickGelu& op) {
  need_f32(op.x, op.x.rows(), op.x.shape[1], "quick_gelu: x is not f32 [rows, columns]");
  need_f32(op.out, op.x.rows(), op.x.shape[1], "quick_gelu: out differs from x");
}

void check(const Context&, const Im2Col& op) {
  need(op.width > 0 && op.x.rows() % op.width == 0, "im2col: rows are not whole lines");
  need(op.kernel > 0 && op.stride > 0 && op.padding >= 0 && op.padding < op.kernel, "im2col: no such convolution");
  need(std::min<std::int64_t>(op.width, op.height()) + 2 * op.padding >= op.kernel,
       "im2col: the picture is smaller than the kernel");
  need_f32(op.x, op.x.rows(), op.x.shape[1], "im2col: x is not f32 [height * width, channels]");
  need_f32(op.out, op.steps(op.height()) * op.steps(op.width), op.x.shape[1] * op.kernel * op.kernel,
           "im2col: out is not f32 [steps, channels * kernel * kernel]");
}

void check(const Context&, const FullAttention& op) {
  const std::int64_t rows = op.q.rows(), columns = op.q.shape[1];
  need(op.heads > 0 && columns > 0 && columns % op.heads == 0, "full_attention: columns are not whole heads");
  for (const Tensor* t : {&op.q, &op.k, &op.v, &op.out})
    need_f32(*t, rows, columns, "full_attention: a tensor is not f32 [rows, heads * head_dim]");
}

}  // namespace

void validate(const Operator& op, Ranges ranges) {
  std::visit([&](const auto& o) { check(Context{ranges}, o); }, op);
}

}  // namespace tandem
