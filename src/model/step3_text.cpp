// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Step-3 text, as in section 2 of the paper and the published checkpoint:
//
//   MFA   c = n(Wqdown h);  Q = Wq c in 64 heads of 256;  one k = Wk h and one v = Wv h for all heads; RoPE on Q and k
//   MoE   p = softmax(Wgate y); the top three, not renormalised; sum of weighted experts, plus the shared expert
//   unweighted
#include "model/step3_text.h"

#include <algorithm>

#include "base/format.h"
#include "model/decoder_config.h"
#include "model/layer_pieces.h"

namespace tandem {

// ---- hyper-parameters

ModelConfig read_step3_text_config(const ConfigReader& config) {
  for (const char* key : {"rope_scaling", "rope_parameters"})
    if (config.has(key)) config.unsupported(key, "null");
  if (config.integer_or("num_attention_groups", 1, 1, kHeadsMax) != 1) config.unsupported("num_attention_groups", "1");
  ModelConfig c;
  c.architecture = "step3_text";
  c.layers = static_cast<std::int32_t>(config.integer("num_hidden_layers", 1, kLayersMax));
  c.hidden = static_cast<std::int32_t>(config.integer("hidden_size", 1, kWidthMax));
  c.vocab = static_cast<std::int32_t>(config.integer("vocab_size", 1, kVocabMax));
  c.context_tokens_max = config.integer_or("max_position_embedding", 65536, 1, kContextMax);
  c.norm_eps = static_cast<float>(config.number_or("rms_norm_eps", 1e-5, 0, 1));
  c.heads = static_cast<std::int32_t>(config.integer("num_attention_heads", 1, kHeadsMax));
  c.kv_heads = 1;
  c.head_dim = static_cast<std::int32_t>(config.integer("head_dim", 2, head_dim_max(c.heads)));
  if (c.head_dim % 2 != 0) config.invalid("head_dim", "an even number");
  c.query_rank = static_cast<std::int32_t>(config.integer_or("share_q_dim", c.head_dim, 1, kWidthMax));
  c.rope.theta = config.number_or("rope_theta", 500000, 1, 1e12);
  c.rope.dim = c.head_dim;
  c.ffn_width = static_cast<std::int32_t>(config.integer("intermediate_size", 1, kWidthMax));
  c.routed = read_moe_layers_enum(config, c.layers);
  c.experts = static_cast<std::int32_t>(config.integer("moe_num_experts", 1, kExpertsMax));
  c.experts_per_token = static_cast<std::int32_t>(config.integer("moe_top_k", 1, c.experts));
  c.expert_width = static_cast<std::int32_t>(config.integer("moe_intermediate_size", 1, kWidthMax));
  c.shared_width = static_cast<std::int32_t>(config.integer("share_expert_dim", 1, kWidthMax));
  c.renormalise = config.boolean_or("norm_expert_weight", false);
  c.block_fp8 = read_block_fp8(config);
  c.tied_head =
      config.boolean_or("tie_word_embeddings", false);  // the published file omits it, and has a head of its own
  c.eos_ids = config.ids("eos_token_id", c.vocab);
  return c;
}

// ---- weights

namespace {

struct Layer {
  NormWeight input_norm, query_norm, post_norm;
  std::unique_ptr<Weight> down_qkv;  // [query_rank + 2·dim, hidden]: query down-projection, k, v
  std::unique_ptr<Weight> q;         // [heads·dim, query_rank]
  std::unique_ptr<Weight> o;         // [hidden, heads·dim]
  std::unique_ptr<Weight> router;    // [experts, hidden], routed layers
  GatedFfn ffn;                      // dense FFN, or the shared expert
  RoutedExperts experts;             // routed layers
};

class Step3Text final : public Model {
 public:
  Step3Text(const ModelConfig& config, const ModelShare& share, WeightReader& reader);

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
    return scratch_bytes({rows_max * (c.query_rank + 2 * c.head_dim), rows_max * c.heads * c.head_dim,
                          rows_max * c.heads * c.head_dim, rows_max * c.hidden, rows_max * c.experts,
                          logits_max * c.hidden, logits_max * c.hidden}) +
           linear_scratch(rows_max, std::max<std::int64_t>({c.hidden, c.query_rank, c.heads * c.head_dim}));
  }
  std::size_t ffn_scratch_bytes(std::int64_t rows_max) const override { return ffn_scratch(config(), rows_max); }

 private:
  void load_attention(WeightReader& reader, const std::string& prefix, Layer& layer, bool routed) const;
  void load_ffn(WeightReader& reader, const std::string& prefix, Layer& layer, bool routed,
                const FfnShare& share) const;

  TokenTables tables_;
  Buffer inv_freq_;  // f32
  std::vector<Layer> layers_;
};

Step3Text::Step3Text(const ModelConfig& config, const ModelShare& share, WeightReader& reader)
    : Model(config),
      inv_freq_(reader.constant(rope_inv_freq(config.rope))),
      layers_(static_cast<std::size_t>(config.layers)) {
  if (share.attention) tables_ = load_token_tables(reader, config, CheckpointFormat::kSafetensors);
  for (std::int32_t i = 0; i < config.layers; ++i) {
    const std::string prefix = format("model.layers.{}.", i);
    if (share.attention) load_attention(reader, prefix, layers_[i], config.is_routed(i));
    if (share.ffn) load_ffn(reader, prefix, layers_[i], config.is_routed(i), share.experts);
  }
  weight_bytes_ = reader.bytes_packed();
}

void Step3Text::load_attention(WeightReader& reader, const std::string& prefix, Layer& layer, bool routed) const {
  const ModelConfig& c = config();
  const std::string a = prefix + "self_attn.";
  const std::int64_t q_columns = c.heads * c.head_dim;
  layer.input_norm = load_norm(reader, prefix + "input_layernorm.weight", c.hidden);
  layer.down_qkv = reader.matrix(Part::kAttention, {{.name = a + "q_proj.weight", .shape = {c.query_rank, c.hidden}},
                                                    {.name = a + "k_proj.weight", .shape = {c.head_dim, c.hidden}},
                                                    {.name = a + "v_proj.weight", .shape = {c.head_dim, c.hidden}}});
  layer.query_norm = load_norm(reader, a + "inter_norm.weight", c.query_rank, Part::kAttention);
  layer.q = reader.matrix(Part::kAttention, {{.name = a + "wq.weight", .shape = {q_columns, c.query_rank}}});
  layer.o = reader.matrix(Part::kAttention, {{.name = a + "o_proj.weight", .shape = {c.hidden, q_columns}}});
  layer.post_norm = load_norm(reader, prefix + "post_attention_layernorm.weight", c.hidden);
  if (routed)
    layer.router = reader.matrix(Part::kRouter, {{.name = prefix + "moe.gate.weight", .shape = {c.experts, c.hidden}}});
}

void Step3Text::load_ffn(WeightReader& reader, const std::string& prefix, Layer& layer, bool routed,
                         const FfnShare& share) const {
  const ModelConfig& c = config();
  const auto names = [&](const std::string& block) { return projections(prefix + block); };
  if (routed) layer.experts = load_routed_experts(reader, stacked_experts(names("moe."), c.experts), c, share);
  if (share.slice_count == 0) return;
  layer.ffn = routed ? load_gated_ffn(reader, Part::kSharedExpert, names("share_expert."), c.hidden, c.shared_width,
                                      share.slice_first, share.slice_count)
                     : load_gated_ffn(reader, Part::kDenseFfn, names("mlp."), c.hidden, c.ffn_width, share.slice_first,
                                      share.slice_count);
}

// ---- attention

void Step3Text::attention(const Workspace& w, std::int32_t index, const RowBatch& batch, const Residual& residual,
                          const HandOver& hand_over) const {
  const ModelConfig& c = config();
  const Layer& layer = layers_[index];
  const std::int64_t rows = batch.rows(), q_columns = c.heads * c.head_dim;
  const Tensor inv_freq(inv_freq_.data(), DType::kF32, {c.rope.dim / 2});
  Arena::Scope scope(w.arena);
  const Tensor down = w.arena.f32(rows, c.query_rank + 2 * c.head_dim), q = w.arena.f32(rows, q_columns);
  const Tensor attended = w.arena.f32(rows, q_columns), out = w.arena.f32(rows, c.hidden);
  const Tensor query = down.slice_columns(0, c.query_rank), k = down.slice_columns(c.query_rank, c.head_dim);

  enter_layer(w, residual, layer.input_norm, c.norm_eps, hand_over.hidden);
  run_linear(w, down, hand_over.hidden, *layer.down_qkv, KSlices::whole(c.hidden));
  w.backend.run(RmsNorm{query, query, layer.query_norm.tensor(), c.norm_eps});
  run_linear(w, q, query, *layer.q, KSlices::whole(c.query_rank));
  w.backend.run(Rope{q, batch.positions, inv_freq, c.head_dim});
  w.backend.run(Rope{k, batch.positions, inv_freq, c.head_dim});
  attend(w, index, batch, c, q, k, down.slice_columns(c.query_rank + c.head_dim, c.head_dim), attended);
  run_linear(w, out, attended, *layer.o, KSlices::whole(q_columns));
  w.backend.run(AddRmsNorm{hand_over.hidden, residual.stream, out, layer.post_norm.tensor(), c.norm_eps});
}

void Step3Text::route(const Workspace& w, std::int32_t index, const HandOver& hand_over) const {
  Arena::Scope scope(w.arena);
  const Tensor logits = w.arena.f32(hand_over.rows(), config().experts);
  w.backend.run(MatMul{logits, hand_over.hidden, layers_[index].router.get(), KSlices::whole(config().hidden)});
  w.backend.run(SelectExperts{hand_over.expert_ids, hand_over.expert_weights, logits, config().renormalise});
}

// ---- feed-forward

void Step3Text::experts(const Workspace& w, std::int32_t index, const HandOver& hand_over,
                        const FfnOutput& output) const {
  const Layer& layer = layers_[index];
  if (config().is_routed(index)) run_routed_experts(w, layer.experts, hand_over, output.slot_rows);
  if (output.partial) run_gated_ffn(w, layer.ffn, hand_over.hidden, output.partial);
}

}  // namespace

std::unique_ptr<Model> make_step3_text(const ModelConfig& config, const ModelShare& share, WeightReader& reader) {
  return std::make_unique<Step3Text>(config, share, reader);
}

}  // namespace tandem
