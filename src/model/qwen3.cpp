// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Qwen3:  x ← x + Wo · GQA(RoPE(nq(Wq n(x))), RoPE(nk(Wk n(x))), Wv n(x));   x ← x + FFN(n(x))
//
//   nq, nk  RMS norms over each head by itself
//   FFN     dense  Wdown (silu(Wgate y) · Wup y)
//           MoE    p = softmax(Wrouter y); the top k, made to sum to 1; sum of weighted experts
#include "model/qwen3.h"

#include <algorithm>

#include "base/format.h"
#include "model/decoder_config.h"
#include "model/layer_pieces.h"

namespace tandem {

// ---- hyper-parameters

ModelConfig read_qwen3_config(const ConfigReader& config) {
  if (config.boolean_or("use_sliding_window", false)) config.unsupported("use_sliding_window", "false");
  if (!config.has("head_dim")) config.invalid("head_dim", "an integer");  // not hidden over heads in any of them
  ModelConfig c = read_decoder_config(config);
  c.architecture = "qwen3";
  return c;
}

namespace {

// A layer has experts unless mlp_only_layers names it or it is not one of every decoder_sparse_step layers.
std::vector<bool> read_routed_layers(const ConfigReader& config, std::int32_t layers) {
  const std::int64_t step = config.integer_or("decoder_sparse_step", 1, 1, kLayersMax);
  std::vector<bool> routed(layers);
  for (std::int32_t i = 0; i < layers; ++i) routed[i] = (i + 1) % step == 0;
  if (!config.has("mlp_only_layers")) return routed;
  const Json& dense = config.raw("mlp_only_layers");
  if (!dense.is_array()) config.invalid("mlp_only_layers", "a list of layer numbers");
  for (const Json& layer : dense) {
    if (!layer.is_number_integer() || layer.get<std::int64_t>() < 0 || layer.get<std::int64_t>() >= layers)
      config.invalid("mlp_only_layers", format("layer numbers in 0 … {}", layers - 1));
    routed[layer.get<std::size_t>()] = false;
  }
  return routed;
}

}  // namespace

ModelConfig read_qwen3_moe_config(const ConfigReader& config) {
  ModelConfig c = read_qwen3_config(config);
  c.architecture = "qwen3_moe";
  c.routed = read_routed_layers(config, c.layers);
  c.experts = static_cast<std::int32_t>(config.integer("num_experts", 1, kExpertsMax));
  c.experts_per_token = static_cast<std::int32_t>(config.integer("num_experts_per_tok", 1, c.experts));
  c.expert_width = static_cast<std::int32_t>(config.integer("moe_intermediate_size", 1, kWidthMax));
  c.renormalise = config.boolean_or("norm_topk_prob", false);
  return c;
}

ModelConfig read_qwen3_gguf_config(const Checkpoint& checkpoint, const ConfigReader& config) {
  ModelConfig c = read_decoder_gguf_config(checkpoint, config, "qwen3");
  c.architecture = "qwen3";
  return c;
}

// Every layer has experts, and the weights of the chosen ones sum to 1: these files have no key that says otherwise.
ModelConfig read_qwen3_moe_gguf_config(const Checkpoint& checkpoint, const ConfigReader& config) {
  ModelConfig c = read_decoder_gguf_config(checkpoint, config, "qwen3moe");
  c.architecture = "qwen3_moe";
  c.routed.assign(c.layers, true);
  c.experts = static_cast<std::int32_t>(config.integer("qwen3moe.expert_count", 1, kExpertsMax));
  c.experts_per_token = static_cast<std::int32_t>(config.integer("qwen3moe.expert_used_count", 1, c.experts));
  c.expert_width = static_cast<std::int32_t>(config.integer("qwen3moe.expert_feed_forward_length", 1, kWidthMax));
  c.renormalise = true;
  return c;
}

// ---- weights

namespace {

struct LayerNames {
  std::string input_norm, q, k, v, q_norm, k_norm, o, post_norm, router;
  GatedFfnNames dense;
  ExpertNames experts;
};

// Both formats keep the rows of a head as the rotation wants them. GGUF stacks the experts.
LayerNames gguf_names(std::int32_t layer, std::int32_t experts) {
  const std::string p = format("blk.{}.", layer);
  return {.input_norm = p + "attn_norm.weight",
          .q = p + "attn_q.weight",
          .k = p + "attn_k.weight",
          .v = p + "attn_v.weight",
          .q_norm = p + "attn_q_norm.weight",
          .k_norm = p + "attn_k_norm.weight",
          .o = p + "attn_output.weight",
          .post_norm = p + "ffn_norm.weight",
          .router = p + "ffn_gate_inp.weight",
          .dense = {p + "ffn_gate.weight", p + "ffn_up.weight", p + "ffn_down.weight"},
          .experts = stacked_experts({p + "ffn_gate_exps.weight", p + "ffn_up_exps.weight", p + "ffn_down_exps.weight"},
                                     experts)};
}

LayerNames safetensors_names(std::int32_t layer) {
  const std::string p = format("model.layers.{}.", layer), a = p + "self_attn.", m = p + "mlp.";
  return {.input_norm = p + "input_layernorm.weight",
          .q = a + "q_proj.weight",
          .k = a + "k_proj.weight",
          .v = a + "v_proj.weight",
          .q_norm = a + "q_norm.weight",
          .k_norm = a + "k_norm.weight",
          .o = a + "o_proj.weight",
          .post_norm = p + "post_attention_layernorm.weight",
          .router = m + "gate.weight",
          .dense = projections(m),
          .experts = [=](std::int32_t expert) { return projections(m + format("experts.{}.", expert)); }};
}

struct Layer {
  NormWeight input_norm, query_norm, key_norm, post_norm;
  std::unique_ptr<Weight> qkv;     // [(heads + 2·kv_heads)·dim, hidden]
  std::unique_ptr<Weight> o;       // [hidden, heads·dim]
  std::unique_ptr<Weight> router;  // [experts, hidden], routed layers
  GatedFfn ffn;                    // dense layers
  RoutedExperts experts;           // routed layers
};

class Qwen3 final : public Model {
 public:
  Qwen3(const ModelConfig& config, CheckpointFormat format, const ModelShare& share, WeightReader& reader);

  void embed(const Workspace& w, const RowBatch& batch, const Residual& residual) const override {
    w.backend.run(EmbedRows{residual.stream, tables_.embedding.get(), batch.ids});
  }
  void attention(const Workspace& w, std::int32_t layer, const RowBatch& batch, const Residual& residual,
                 const HandOver& hand_over) const override;
  void route(const Workspace& w, std::int32_t layer, const HandOver& hand_over) const override;
  void experts(const Workspace& w, std::int32_t layer, const HandOver& hand_over,
               const FfnOutput& output) const override;
  void head(const Workspace& w, const RowBatch& batch, const Residual& residual, const Tensor& logits) const override {
    final_logits(w, batch, residual, tables_.final_norm, config().norm_eps, tables_.head(), logits);
  }
  std::size_t attention_scratch_bytes(std::int64_t rows_max, std::int64_t logits_max) const override {
    const ModelConfig& c = config();
    return scratch_bytes({rows_max * (c.heads + 2 * c.kv_heads) * c.head_dim, rows_max * c.heads * c.head_dim,
                          rows_max * c.hidden, rows_max * c.experts, logits_max * c.hidden, logits_max * c.hidden}) +
           linear_scratch(rows_max, std::max<std::int64_t>(c.hidden, c.heads * c.head_dim));
  }
  std::size_t ffn_scratch_bytes(std::int64_t rows_max) const override { return ffn_scratch(config(), rows_max); }

 private:
  void load_attention(WeightReader& reader, const LayerNames& names, bool routed, Layer& layer) const;
  void load_ffn(WeightReader& reader, const LayerNames& names, bool routed, const FfnShare& share, Layer& layer) const;

  TokenTables tables_;
  Buffer inv_freq_;  // f32
  std::vector<Layer> layers_;
};

Qwen3::Qwen3(const ModelConfig& config, CheckpointFormat format, const ModelShare& share, WeightReader& reader)
    : Model(config),
      inv_freq_(reader.constant(rope_inv_freq(config.rope))),
      layers_(static_cast<std::size_t>(config.layers)) {
  const bool gguf = format == CheckpointFormat::kGguf;
  if (share.attention) tables_ = load_token_tables(reader, config, format);
  for (std::int32_t i = 0; i < config.layers; ++i) {
    const LayerNames names = gguf ? gguf_names(i, config.experts) : safetensors_names(i);
    if (share.attention) load_attention(reader, names, config.is_routed(i), layers_[i]);
    if (share.ffn) load_ffn(reader, names, config.is_routed(i), share.experts, layers_[i]);
  }
  weight_bytes_ = reader.bytes_packed();
  reader.ignore("rope_freqs.weight");  // read with the configuration
}

void Qwen3::load_attention(WeightReader& reader, const LayerNames& names, bool routed, Layer& layer) const {
  const ModelConfig& c = config();
  const std::int64_t q_rows = c.heads * c.head_dim, kv_rows = c.kv_heads * c.head_dim;
  layer.input_norm = load_norm(reader, names.input_norm, c.hidden);
  layer.qkv = reader.matrix(Part::kAttention, {{.name = names.q, .shape = {q_rows, c.hidden}},
                                               {.name = names.k, .shape = {kv_rows, c.hidden}},
                                               {.name = names.v, .shape = {kv_rows, c.hidden}}});
  layer.query_norm = load_norm(reader, names.q_norm, c.head_dim);
  layer.key_norm = load_norm(reader, names.k_norm, c.head_dim);
  layer.o = reader.matrix(Part::kAttention, {{.name = names.o, .shape = {c.hidden, q_rows}}});
  layer.post_norm = load_norm(reader, names.post_norm, c.hidden);
  if (routed) layer.router = reader.matrix(Part::kRouter, {{.name = names.router, .shape = {c.experts, c.hidden}}});
}

void Qwen3::load_ffn(WeightReader& reader, const LayerNames& names, bool routed, const FfnShare& share,
                     Layer& layer) const {
  const ModelConfig& c = config();
  if (routed)
    layer.experts = load_routed_experts(reader, names.experts, c, share);
  else if (share.slice_count > 0)
    layer.ffn = load_gated_ffn(reader, Part::kDenseFfn, names.dense, c.hidden, c.ffn_width, share.slice_first,
                               share.slice_count);
}

// ---- attention

void Qwen3::attention(const Workspace& w, std::int32_t index, const RowBatch& batch, const Residual& residual,
                      const HandOver& hand_over) const {
  const ModelConfig& c = config();
  const Layer& layer = layers_[index];
  const std::int64_t rows = batch.rows(), q_columns = c.heads * c.head_dim, kv_columns = c.kv_heads * c.head_dim;
  const Tensor inv_freq(inv_freq_.data(), DType::kF32, {c.rope.dim / 2});
  Arena::Scope scope(w.arena);
  const Tensor qkv = w.arena.f32(rows, q_columns + 2 * kv_columns), attended = w.arena.f32(rows, q_columns);
  const Tensor out = w.arena.f32(rows, c.hidden);
  const Tensor q = qkv.slice_columns(0, q_columns), k = qkv.slice_columns(q_columns, kv_columns);

  enter_layer(w, residual, layer.input_norm, c.norm_eps, hand_over.hidden);
  run_linear(w, qkv, hand_over.hidden, *layer.qkv, KSlices::whole(c.hidden));
  w.backend.run(RmsNorm{q, q, layer.query_norm.tensor(), c.norm_eps});
  w.backend.run(RmsNorm{k, k, layer.key_norm.tensor(), c.norm_eps});
  w.backend.run(Rope{q, batch.positions, inv_freq, c.head_dim, 0, false, c.rope.magnitude});
  w.backend.run(Rope{k, batch.positions, inv_freq, c.head_dim, 0, false, c.rope.magnitude});
  attend(w, index, batch, c, q, k, qkv.slice_columns(q_columns + kv_columns, kv_columns), attended);
  run_linear(w, out, attended, *layer.o, KSlices::whole(q_columns));
  w.backend.run(AddRmsNorm{hand_over.hidden, residual.stream, out, layer.post_norm.tensor(), c.norm_eps});
}

void Qwen3::route(const Workspace& w, std::int32_t index, const HandOver& hand_over) const {
  Arena::Scope scope(w.arena);
  const Tensor logits = w.arena.f32(hand_over.rows(), config().experts);
  w.backend.run(MatMul{logits, hand_over.hidden, layers_[index].router.get(), KSlices::whole(config().hidden)});
  w.backend.run(SelectExperts{hand_over.expert_ids, hand_over.expert_weights, logits, config().renormalise});
}

// ---- feed-forward

void Qwen3::experts(const Workspace& w, std::int32_t index, const HandOver& hand_over, const FfnOutput& output) const {
  const Layer& layer = layers_[index];
  if (config().is_routed(index))
    run_routed_experts(w, layer.experts, hand_over, output.slot_rows);
  else if (output.partial)
    run_gated_ffn(w, layer.ffn, hand_over.hidden, output.partial);
}

}  // namespace

std::unique_ptr<Model> make_qwen3(const ModelConfig& config, CheckpointFormat names, const ModelShare& share,
                                  WeightReader& reader) {
  return std::make_unique<Qwen3>(config, names, share, reader);
}

}  // namespace tandem
