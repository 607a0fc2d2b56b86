// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Names and prices of the operators. Validation is in validate.cpp.
#include "ops/operators.h"

#include <algorithm>

namespace tandem {

namespace {

template <class... F>
struct Overload : F... {
  using F::operator()...;
};

std::int64_t bytes_of(const Tensor& t) {
  return t ? static_cast<std::int64_t>(row_bytes(t.dtype, static_cast<std::size_t>(t.shape.elements()))) : 0;
}

Work work_of(const EmbedRows& op) {
  return {0, bytes_of(op.ids) + bytes_of(op.out), bytes_of(op.out)};
}

Work work_of(const RmsNorm& op) {
  return {4 * op.x.shape.elements(), bytes_of(op.x) + bytes_of(op.weight), bytes_of(op.out)};
}

Work work_of(const AddRmsNorm& op) {
  return {5 * op.x.shape.elements(), bytes_of(op.x) + bytes_of(op.residual) + bytes_of(op.weight),
          bytes_of(op.residual) + bytes_of(op.out)};
}

Work work_of(const MatMul& op) {
  return {2 * op.x.rows() * op.weight->n() * op.weight->k(),
          bytes_of(op.x) + static_cast<std::int64_t>(op.weight->bytes()), bytes_of(op.out)};
}

Work work_of(const GroupedMatMul& op) {
  // Who chose whom may be known to a device alone. As many experts are read as can have rows.
  const auto experts = std::min(op.x.rows(), static_cast<std::int64_t>(op.experts.size()));
  if (experts == 0) return {};
  const Weight& expert = *op.experts.front();
  return {2 * op.x.rows() * expert.n() * expert.k(),
          bytes_of(op.x) + experts * static_cast<std::int64_t>(expert.bytes()), bytes_of(op.out)};
}

Work work_of(const Rope& op) {
  const std::int64_t heads = op.x.shape[1] / op.head_dim;
  const std::int64_t elements = 2 * op.x.rows() * heads * op.inv_freq.shape[0];
  const auto bytes = elements * static_cast<std::int64_t>(sizeof(float));
  return {3 * elements, bytes, bytes};
}

Work work_of(const ProjectHeads& op) {
  Work total{0, bytes_of(op.x), bytes_of(op.out)};
  for (const Weight* weight : op.weights) {
    total.flops += 2 * op.x.rows() * weight->n() * weight->k();
    total.bytes_read += static_cast<std::int64_t>(weight->bytes());
  }
  return total;
}

Work work_of(const GateHeads& op) {
  return {op.x.shape.elements() + 4 * op.gates.shape.elements(), bytes_of(op.x) + bytes_of(op.gates), bytes_of(op.x)};
}

Work work_of(const AppendKv& op) {
  const auto token_bytes = static_cast<std::int64_t>(op.cache->spec().token_layer_bytes());
  return {0, bytes_of(op.k) + bytes_of(op.v), op.k.rows() * token_bytes};
}

Work work_of(const PagedAttention& op) {
  const KvSpec& spec = op.cache->spec();
  return {2 * op.context_tokens * op.heads * (spec.k_dim + spec.v_dim),
          op.context_tokens * static_cast<std::int64_t>(spec.token_layer_bytes()) + bytes_of(op.q), bytes_of(op.out)};
}

Work work_of(const SwiGlu& op) {
  return {5 * op.out.shape.elements(), bytes_of(op.gate_up), bytes_of(op.out)};
}

Work work_of(const SelectExperts& op) {
  return {4 * op.logits.shape.elements(), bytes_of(op.logits), bytes_of(op.expert_ids) + bytes_of(op.expert_weights)};
}

Work work_of(const ClampIds& op) {
  return {0, bytes_of(op.ids), bytes_of(op.out)};
}

Work work_of(const GroupByExpert& op) {
  return {0, bytes_of(op.expert_ids) + bytes_of(op.expert_weights),
          bytes_of(op.rows) + bytes_of(op.outputs) + bytes_of(op.weights) + bytes_of(op.offsets)};
}

Work work_of(const GatherRows& op) {
  return {0, bytes_of(op.out) + bytes_of(op.index), bytes_of(op.out)};
}

Work work_of(const ScatterScaledRows& op) {
  return {op.x.shape.elements(), bytes_of(op.x) + bytes_of(op.index) + bytes_of(op.weights), bytes_of(op.x)};
}

Work work_of(const CombineExperts& op) {
  std::int64_t terms = (op.slot_rows ? op.top_k : 0) + static_cast<std::int64_t>(op.partials.size());
  return {(terms - 1) * op.out.shape.elements(), terms * bytes_of(op.out), bytes_of(op.out)};
}

Work work_of(const Sample& op) {
  return {op.logits.shape.elements(), bytes_of(op.logits), op.logits.rows() * 8};
}

Work work_of(const QuantiseRows& op) {
  return {3 * op.x.shape.elements(), bytes_of(op.x), bytes_of(op.codes) + bytes_of(op.scales)};
}

Work work_of(const WidenRows& op) {
  return {op.out.shape.elements(), bytes_of(op.codes) + bytes_of(op.scales), bytes_of(op.out)};
}

Work work_of(const Fp8MatMul& op) {
  return work_of(MatMul{op.out, op.x, op.weight, op.slices});
}

Work work_of(const Fp8Experts& op) {
  const std::int64_t count = op.out.rows();
  const auto experts = std::min(count, static_cast<std::int64_t>(op.gate_up.size()));
  if (experts == 0) return {};
  const Weight &gate_up = *op.gate_up.front(), &down = *op.down.front();
  return {2 * count * (gate_up.n() * gate_up.k() + down.n() * down.k()),
          bytes_of(op.x) + experts * static_cast<std::int64_t>(gate_up.bytes() + down.bytes()), bytes_of(op.out)};
}

Work work_of(const Int8MatMul& op) {
  return work_of(MatMul{op.out, op.x, op.weight, op.slices});
}

Work work_of(const Int8GroupedMatMul& op) {
  return work_of(GroupedMatMul{op.out, op.x, op.experts, op.offsets, op.slices});
}

Work work_of(const AddRows& op) {
  return {op.sum.shape.elements(), bytes_of(op.sum) + bytes_of(op.x), bytes_of(op.sum)};
}

Work work_of(const AddLayerNorm& op) {
  return {8 * op.x.shape.elements(), bytes_of(op.x) + bytes_of(op.residual) + bytes_of(op.weight) + bytes_of(op.bias),
          bytes_of(op.residual)};
}

Work work_of(const QuickGelu& op) {
  return {4 * op.x.shape.elements(), bytes_of(op.x), bytes_of(op.out)};
}

Work work_of(const Im2Col& op) {
  return {0, bytes_of(op.x), bytes_of(op.out)};
}

Work work_of(const FullAttention& op) {
  return {4 * op.q.rows() * op.q.shape.elements(), bytes_of(op.q) + bytes_of(op.k) + bytes_of(op.v), bytes_of(op.out)};
}

}  // namespace

Work work(const Operator& op) {
  return std::visit([](const auto& o) { return work_of(o); }, op);
}

std::string_view name(const Operator& op) {
  static constexpr std::string_view kNames[] = {"embed_rows",      "rms_norm",
                                                "add_rms_norm",    "matmul",
                                                "grouped_matmul",  "rope",
                                                "project_heads",   "gate_heads",
                                                "append_kv",       "paged_attention",
                                                "swiglu",          "select_experts",
                                                "clamp_ids",       "group_by_expert",
                                                "gather_rows",     "scatter_scaled_rows",
                                                "combine_experts", "sample",
                                                "quantise_rows",   "widen_rows",
                                                "fp8_matmul",      "fp8_experts",
                                                "int8_matmul",     "int8_grouped_matmul",
                                                "add_rows",        "add_layer_norm",
                                                "quick_gelu",      "im2col",
                                                "full_attention"};
  static_assert(std::size(kNames) == std::variant_size_v<Operator>);
  return kNames[op.index()];
}

std::int64_t rows(const Operator& op) {
  return std::visit(
      Overload{[](const Rope& o) { return o.x.rows(); }, [](const GateHeads& o) { return o.x.rows(); },
               [](const AppendKv& o) { return o.k.rows(); }, [](const SelectExperts& o) { return o.logits.rows(); },
               [](const GroupByExpert& o) { return o.expert_ids.rows(); },
               [](const ScatterScaledRows& o) { return o.x.rows(); }, [](const Sample& o) { return o.logits.rows(); },
               [](const QuantiseRows& o) { return o.x.rows(); }, [](const AddRows& o) { return o.sum.rows(); },
               [](const AddLayerNorm& o) { return o.residual.rows(); }, [](const auto& o) { return o.out.rows(); }},
      op);
}

}  // namespace tandem
