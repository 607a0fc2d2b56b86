// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/layer_operators.h"

#include <algorithm>

namespace tandem {

std::int64_t StepRows::seen(std::int32_t seen_max) const {
  std::int64_t all = 0;
  for (const std::int64_t context : contexts) all += seen_max > 0 ? std::min(context, std::int64_t{seen_max}) : context;
  return all;
}

namespace {

// What operators point to: sizes without memory. A tensor counts as there when it has an address; nobody looks behind
// this one.
class Sketch {
 public:
  explicit Sketch(const StepPrecision& precision, Accounting accounting = Accounting::kPaper)
      : precision_(precision), accounting_(accounting) {}

  Tensor f32(std::int64_t rows, std::int64_t columns) { return {&nowhere_, DType::kF32, {rows, columns}}; }
  Tensor f32(std::int64_t elements) { return {&nowhere_, DType::kF32, {elements}}; }
  Tensor i32(std::int64_t elements) { return {&nowhere_, DType::kI32, {elements}}; }
  Tensor i32(std::int64_t rows, std::int64_t columns) { return {&nowhere_, DType::kI32, {rows, columns}}; }

  const Weight* weight(std::int64_t n, std::int64_t k) {
    const DTypeTraits type = traits(precision_.weights);
    const auto elements = static_cast<std::size_t>(n) * static_cast<std::size_t>(k);
    return &weights_.emplace_back(n, k, elements / type.block_elements * type.block_bytes);
  }
  std::span<const Weight* const> weights(std::int64_t count, std::int64_t n, std::int64_t k) {
    return lists_.emplace_back(static_cast<std::size_t>(count), weight(n, k));
  }
  KvCache* cache(const AttentionShape& a, std::int32_t kv_heads, std::int32_t k_dim, std::int32_t v_dim, bool v_in_k) {
    return &caches_.emplace_back(KvSpec{1, kv_heads, k_dim, v_dim, a.kv.value_or(precision_.kv), 0, v_in_k});
  }

  void add(const Operator& op, CostPart part = CostPart::kElementwise) {
    operators_.push_back({std::string(name(op)), rows(op), part, work(op), 0});
  }
  // The cache that an attention reads is what is left of its reading without its queries. The paper counts no scales.
  void add_attention(const PagedAttention& op) {
    add(op, CostPart::kAttentionCore);
    PagedAttention blind = op;
    blind.q = {};
    const std::int64_t scale_bytes =
        accounting_ == Accounting::kPaper ? 4 * op.context_tokens * op.cache->spec().token_scales() : 0;
    operators_.back().work.bytes_read -= scale_bytes;
    operators_.back().kv_bytes = work(blind).bytes_read - scale_bytes;
  }
  // A state of f32 that every token reads and writes whole, with about ten FLOPs an element (spec, section 8.2).
  void add_lightning(const AttentionShape& a, std::int64_t rows) {
    const std::int64_t elements = rows * a.heads * a.head_dim * a.head_dim;
    operators_.push_back({"lightning_attention",
                          rows,
                          CostPart::kAttentionCore,
                          {10 * elements, 4 * elements, 4 * elements},
                          8 * elements});
  }
  std::vector<PricedOperator> take() { return std::move(operators_); }

 private:
  StepPrecision precision_;
  Accounting accounting_;
  std::byte nowhere_{};
  std::deque<Weight> weights_;
  std::deque<std::vector<const Weight*>> lists_;
  std::deque<KvCache> caches_;
  std::vector<PricedOperator> operators_;
};

// One layer's attention half while it is written down.
struct Half {
  Sketch& sketch;
  const AttentionShape& a;
  const StepRows& step;
  std::int64_t hidden;

  std::int64_t rows() const { return step.rows(); }
  void project(std::int64_t n, std::int64_t k) const {
    sketch.add(MatMul{sketch.f32(rows(), n), sketch.f32(rows(), k), sketch.weight(n, k), {}}, CostPart::kProjection);
  }
  void norm(std::int64_t columns, std::int64_t width) const {
    const Tensor x = sketch.f32(rows(), columns);
    sketch.add(RmsNorm{x, x, sketch.f32(width), 0});
  }
  void rotate(std::int64_t heads, std::int32_t head_dim) const {
    sketch.add(Rope{sketch.f32(rows(), heads * head_dim), sketch.i32(rows()), sketch.f32(a.rope_dim / 2), head_dim});
  }
  void attend(const KvCache* cache, std::int64_t query_columns) const {
    const KvSpec& spec = cache->spec();
    const std::int64_t k_columns = std::int64_t{spec.kv_heads} * spec.k_dim;
    const Tensor values = spec.v_in_k ? Tensor() : sketch.f32(rows(), std::int64_t{spec.kv_heads} * spec.v_dim);
    sketch.add(AppendKv{sketch.f32(rows(), k_columns), values, sketch.i32(rows()), const_cast<KvCache*>(cache), 0});
    PagedAttention op{};
    op.out = sketch.f32(rows(), std::int64_t{a.heads} * spec.v_dim);
    op.q = sketch.f32(rows(), query_columns);
    op.cache = cache;
    op.heads = a.heads;
    op.context_tokens = step.seen(a.seen_max);
    op.window = a.seen_max;
    sketch.add_attention(op);
  }
};

// GQA and MFA, which differ in how queries are made.
void write_grouped(const Half& h) {
  const AttentionShape& a = h.a;
  const std::int64_t q = std::int64_t{a.heads} * a.head_dim, kv = std::int64_t{a.kv_heads} * a.head_dim;
  if (a.kind == AttentionKind::kMfa) {
    h.project(a.query_rank + 2 * kv, h.hidden);
    h.norm(a.query_rank, a.query_rank);
    h.project(q, a.query_rank);
  } else {
    h.project(q + 2 * kv + (a.gate_heads ? a.heads : 0), h.hidden);
  }
  if (a.norm_heads) {
    h.norm(q, a.head_dim);
    h.norm(kv, a.head_dim);
  }
  h.rotate(a.heads, a.head_dim);
  h.rotate(a.kv_heads, a.head_dim);
  h.attend(h.sketch.cache(a, a.kv_heads, a.head_dim, a.head_dim, false), q);
  if (a.gate_heads) h.sketch.add(GateHeads{h.sketch.f32(h.rows(), q), h.sketch.f32(h.rows(), a.heads)});
  h.project(h.hidden, q);
}

// In absorbed form, in prefill as in decode.
void write_mla(const Half& h, Accounting accounting) {
  const AttentionShape& a = h.a;
  Sketch& s = h.sketch;
  const std::int64_t rows = h.rows(), q = std::int64_t{a.heads} * a.head_dim;
  const std::int32_t key = a.latent + a.rope_dim, plain = a.head_dim - a.rope_dim;
  h.project((a.query_rank > 0 ? a.query_rank : q) + key, h.hidden);
  h.norm(a.latent, a.latent);
  if (a.query_rank > 0) {
    h.norm(a.query_rank, a.query_rank);
    h.project(q, a.query_rank);
  }
  h.rotate(a.heads, a.head_dim);
  h.rotate(1, key);
  s.add(ProjectHeads{s.f32(rows, std::int64_t{a.heads} * key), s.f32(rows, q), s.weights(a.heads, a.latent, plain)},
        CostPart::kProjection);
  h.attend(s.cache(a, 1, key, accounting == Accounting::kPaper ? key : a.latent, true), std::int64_t{a.heads} * key);
  s.add(ProjectHeads{s.f32(rows, std::int64_t{a.heads} * a.value_dim), s.f32(rows, std::int64_t{a.heads} * a.latent),
                     s.weights(a.heads, a.value_dim, a.latent)},
        CostPart::kProjection);
  h.project(h.hidden, std::int64_t{a.heads} * a.value_dim);
}

// Queries, keys, values and the gate of the output in one product.
void write_lightning(const Half& h) {
  const std::int64_t q = std::int64_t{h.a.heads} * h.a.head_dim;
  h.project(4 * q, h.hidden);
  h.sketch.add_lightning(h.a, h.rows());
  h.project(h.hidden, q);
}

void write_gated_ffn(Sketch& s, std::int64_t rows, std::int64_t hidden, std::int64_t width) {
  const auto product = [&](std::int64_t n, std::int64_t k) {
    s.add(MatMul{s.f32(rows, n), s.f32(rows, k), s.weight(n, k), {}}, CostPart::kFfn);
  };
  product(2 * width, hidden);
  s.add(SwiGlu{s.f32(rows, width), s.f32(rows, 2 * width)});
  product(hidden, width);
}

void write_routed_experts(Sketch& s, const FfnShape& f, std::int64_t rows, std::int64_t hidden) {
  const std::int64_t count = rows * f.experts_per_token;
  const auto product = [&](std::int64_t n, std::int64_t k) {
    s.add(GroupedMatMul{s.f32(count, n), s.f32(count, k), s.weights(f.experts, n, k), s.i32(f.experts + 1), {}},
          CostPart::kFfn);
  };
  s.add(GroupByExpert{s.i32(count), s.i32(count), s.f32(count, 1), s.i32(f.experts + 1),
                      s.i32(rows, f.experts_per_token), s.f32(rows, f.experts_per_token), 0});
  s.add(GatherRows{s.f32(count, hidden), s.f32(rows, hidden), s.i32(count)});
  product(2 * std::int64_t{f.expert_width}, hidden);
  s.add(SwiGlu{s.f32(count, f.expert_width), s.f32(count, 2 * std::int64_t{f.expert_width})});
  product(hidden, f.expert_width);
  s.add(ScatterScaledRows{s.f32(count, hidden), s.f32(count, hidden), s.i32(count), s.f32(count, 1)});
}

}  // namespace

LayerOperators::LayerOperators(const ModelShape& shape, const StepPrecision& precision, Accounting accounting)
    : shape_(shape), precision_(precision), accounting_(accounting) {}

std::vector<PricedOperator> LayerOperators::attention(const LayerShape& layer, const StepRows& rows, bool first) const {
  Sketch s(precision_, accounting_);
  const Tensor x = s.f32(rows.rows(), shape_.hidden), weight = s.f32(shape_.hidden);
  if (first)
    s.add(RmsNorm{x, x, weight, 0});
  else
    s.add(AddRmsNorm{x, x, x, weight, 0});
  const Half half{s, layer.attention, rows, shape_.hidden};
  if (layer.attention.kind == AttentionKind::kMla)
    write_mla(half, accounting_);
  else if (layer.attention.kind == AttentionKind::kLightning)
    write_lightning(half);
  else
    write_grouped(half);
  s.add(AddRmsNorm{x, x, x, weight, 0});
  return s.take();
}

std::vector<PricedOperator> LayerOperators::route(const LayerShape& layer, const StepRows& rows) const {
  Sketch s(precision_);
  const FfnShape& f = layer.ffn;
  if (!f.routed()) return {};
  const Tensor logits = s.f32(rows.rows(), f.experts);
  s.add(MatMul{logits, s.f32(rows.rows(), shape_.hidden), s.weight(f.experts, shape_.hidden), {}}, CostPart::kRouter);
  s.add(SelectExperts{s.i32(rows.rows(), f.experts_per_token), s.f32(rows.rows(), f.experts_per_token), logits, false},
        CostPart::kRouter);
  return s.take();
}

std::vector<PricedOperator> LayerOperators::experts(const LayerShape& layer, const StepRows& rows) const {
  Sketch s(precision_);
  if (layer.ffn.routed()) write_routed_experts(s, layer.ffn, rows.rows(), shape_.hidden);
  if (layer.ffn.width > 0) write_gated_ffn(s, rows.rows(), shape_.hidden, layer.ffn.width);
  return s.take();
}

std::vector<PricedOperator> LayerOperators::combine(const LayerShape& layer, const StepRows& rows) const {
  Sketch s(precision_);
  const FfnShape& f = layer.ffn;
  const Tensor out = s.f32(rows.rows(), shape_.hidden);
  const std::vector<Tensor> partials(f.width > 0 ? 1 : 0, out);
  const Tensor slots = f.routed() ? s.f32(rows.rows() * f.experts_per_token, shape_.hidden) : Tensor();
  s.add(CombineExperts{out, slots, f.experts_per_token, partials, {}});
  return s.take();
}

std::vector<PricedOperator> LayerOperators::embed(const StepRows& rows) const {
  Sketch s(precision_);
  s.add(EmbedRows{s.f32(rows.rows(), shape_.hidden), s.weight(shape_.vocab, shape_.hidden), s.i32(rows.rows())});
  return s.take();
}

std::vector<PricedOperator> LayerOperators::head(std::int64_t logits) const {
  Sketch s(precision_);
  const Tensor x = s.f32(logits, shape_.hidden);
  s.add(GatherRows{x, x, s.i32(logits)});
  s.add(GatherRows{x, x, s.i32(logits)});
  s.add(AddRmsNorm{x, x, x, s.f32(shape_.hidden), 0});
  s.add(MatMul{s.f32(logits, shape_.vocab), x, s.weight(shape_.vocab, shape_.hidden), {}}, CostPart::kProjection);
  return s.take();
}

}  // namespace tandem
