// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Qwen3:  x ← x + Wo · GQA(RoPE(nq(Wq n(x))), RoPE(nk(Wk n(x))), Wv n(x));   x ← x + FFN(n(x))
//
//   nq, nk  RMS norms over each head by itself
//   FFN     dense  Wdown (silu(Wgate y) · Wup y)
//           MoE    p = softmax(Wrouter y); the top k, made to sum to 1; sum of weighted experts
#include "model/qwen3.h"

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

// ---- weights

namespace {

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
  Qwen3(const ModelConfig& config, const ModelShare& share, WeightReader& reader);

  void embed(const Workspace& w, const RowBatch& batch, const Residual& residual) const override {
    w.backend.run(EmbedRows{residual.stream, embedding_.get(), batch.ids});
  }
  void attention(const Workspace& w, std::int32_t layer, const RowBatch& batch, const Residual& residual,
                 const HandOver& hand_over) const override;
  void route(const Workspace& w, std::int32_t layer, const HandOver& hand_over) const override;
  void experts(const Workspace& w, std::int32_t layer, const HandOver& hand_over,
               const FfnOutput& output) const override;
  void head(const Workspace& w, const RowBatch& batch, const Residual& residual, const Tensor& logits) const override {
    final_logits(w, batch, residual, final_norm_, config().norm_eps, head_ ? *head_ : *embedding_, logits);
  }
  std::size_t attention_scratch_bytes(std::int64_t rows_max, std::int64_t logits_max) const override {
    const ModelConfig& c = config();
    return scratch_bytes({rows_max * (c.heads + 2 * c.kv_heads) * c.head_dim, rows_max * c.heads * c.head_dim,
                          rows_max * c.hidden, rows_max * c.experts, logits_max * c.hidden, logits_max * c.hidden});
  }
  std::size_t ffn_scratch_bytes(std::int64_t rows_max) const override { return ffn_scratch(config(), rows_max); }

 private:
  void load_attention(WeightReader& reader, std::int32_t index, Layer& layer) const;
  void load_ffn(WeightReader& reader, std::int32_t index, const FfnShare& share, Layer& layer) const;

  std::unique_ptr<Weight> embedding_, head_;  // no head: tied to the embedding
  Buffer inv_freq_;                           // f32
  NormWeight final_norm_;
  std::vector<Layer> layers_;
};

Qwen3::Qwen3(const ModelConfig& config, const ModelShare& share, WeightReader& reader)
    : Model(config),
      inv_freq_(reader.constant(rope_inv_freq(config.rope))),
      layers_(static_cast<std::size_t>(config.layers)) {
  const Shape table{config.vocab, config.hidden};
  if (share.attention) {
    embedding_ = reader.matrix(Part::kEmbedding, {{.name = "model.embed_tokens.weight", .shape = table}});
    if (!config.tied_head) head_ = reader.matrix(Part::kHead, {{.name = "lm_head.weight", .shape = table}});
    final_norm_ = load_norm(reader, "model.norm.weight", config.hidden);
  }
  for (std::int32_t i = 0; i < config.layers; ++i) {
    if (share.attention) load_attention(reader, i, layers_[i]);
    if (share.ffn) load_ffn(reader, i, share.experts, layers_[i]);
  }
  weight_bytes_ = reader.bytes_packed();
  if (config.tied_head) reader.ignore("lm_head.weight");  // some files repeat the embedding under this name
}

void Qwen3::load_attention(WeightReader& reader, std::int32_t index, Layer& layer) const {
  const ModelConfig& c = config();
  const std::string p = format("model.layers.{}.", index), a = p + "self_attn.";
  const std::int64_t q_rows = c.heads * c.head_dim, kv_rows = c.kv_heads * c.head_dim;
  layer.input_norm = load_norm(reader, p + "input_layernorm.weight", c.hidden);
  layer.qkv = reader.matrix(Part::kAttention, {{.name = a + "q_proj.weight", .shape = {q_rows, c.hidden}},
                                               {.name = a + "k_proj.weight", .shape = {kv_rows, c.hidden}},
                                               {.name = a + "v_proj.weight", .shape = {kv_rows, c.hidden}}});
  layer.query_norm = load_norm(reader, a + "q_norm.weight", c.head_dim);
  layer.key_norm = load_norm(reader, a + "k_norm.weight", c.head_dim);
  layer.o = reader.matrix(Part::kAttention, {{.name = a + "o_proj.weight", .shape = {c.hidden, q_rows}}});
  layer.post_norm = load_norm(reader, p + "post_attention_layernorm.weight", c.hidden);
  if (c.is_routed(index))
    layer.router = reader.matrix(Part::kRouter, {{.name = p + "mlp.gate.weight", .shape = {c.experts, c.hidden}}});
}

void Qwen3::load_ffn(WeightReader& reader, std::int32_t index, const FfnShare& share, Layer& layer) const {
  const ModelConfig& c = config();
  const std::string p = format("model.layers.{}.mlp.", index);
  const auto names = [&](const std::string& block) {
    return GatedFfnNames{block + "gate_proj.weight", block + "up_proj.weight", block + "down_proj.weight"};
  };
  if (c.is_routed(index))
    layer.experts = load_routed_experts(
        reader, [&](std::int32_t expert) { return names(p + format("experts.{}.", expert)); }, c, share);
  else if (share.slice_count > 0)
    layer.ffn =
        load_gated_ffn(reader, Part::kDenseFfn, names(p), c.hidden, c.ffn_width, share.slice_first, share.slice_count);
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
  w.backend.run(MatMul{qkv, hand_over.hidden, layer.qkv.get(), KSlices::whole(c.hidden)});
  w.backend.run(RmsNorm{q, q, layer.query_norm.tensor(), c.norm_eps});
  w.backend.run(RmsNorm{k, k, layer.key_norm.tensor(), c.norm_eps});
  w.backend.run(Rope{q, batch.positions, inv_freq, c.head_dim});
  w.backend.run(Rope{k, batch.positions, inv_freq, c.head_dim});
  attend(w, index, batch, c, q, k, qkv.slice_columns(q_columns + kv_columns, kv_columns), attended);
  w.backend.run(MatMul{out, attended, layer.o.get(), KSlices::whole(q_columns)});
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

std::unique_ptr<Model> make_qwen3(const ModelConfig& config, CheckpointFormat, const ModelShare& share,
                                  WeightReader& reader) {
  return std::make_unique<Qwen3>(config, share, reader);
}

}  // namespace tandem
