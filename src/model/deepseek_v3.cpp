// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// DeepSeek-V3, as in section 2 of its report and the published checkpoint:
//
//   MLA   c = n(Wkv h), one latent for all heads; r = RoPE(Wkr h), one rotated key for all heads; q = Wq n(Wqa h)
//         head: key (Wuk c, r), value Wuv c, query (q plain, RoPE(q rotated))
//   MoE   s = sigmoid(Wgate y); the top k of s + bias within the best groups; s of these made to sum to 1, times a
//         factor; sum of weighted experts, plus the shared experts unweighted
//
// The cache keeps (c, r) and nothing else. Attention is always taken in absorbed form, q·(Wuk c) = (Wukᵀq)·c and
// Σ p Wuv c = Wuv Σ p c, in prefill as in decode: with one order of sums a row has the same bits in both. Inputs of Wuk
// and Wuv are never rounded to FP8: their factors are no longer those of the file's matrix.
#include "model/deepseek_v3.h"

#include <algorithm>
#include <cmath>

#include "base/format.h"
#include "model/decoder_config.h"
#include "model/layer_pieces.h"

namespace tandem {

// ---- hyper-parameters

namespace {

// The norms inside attention have an epsilon of their own, which no file names.
constexpr float kInnerNormEps = 1e-6f;

void read_rope(const ConfigReader& config, ModelConfig& c) {
  c.rope.theta = config.number_or("rope_theta", 10000, 1.001, 1e12);
  c.rope.interleaved = config.boolean_or("rope_interleave", true);
  const std::string key = config.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!config.has(key)) return;
  if (!config.raw(key).is_object()) config.invalid(key, "an object");
  const ConfigReader scaling(config.raw(key), config.what() + ": " + key);
  c.rope.theta = scaling.number_or("rope_theta", c.rope.theta, 1.001, 1e12);
  const std::string type = scaling.text_or("rope_type", scaling.text_or("type", "default"));
  if (type == "default") return;
  if (type != "yarn") scaling.unsupported(scaling.has("rope_type") ? "rope_type" : "type", "yarn, default");
  read_yarn(scaling, c.rope);
  // Here the scores are scaled too, whatever sine and cosine are.
  if (const double all = scaling.number_or("mscale_all_dim", 0, 0, 100); all > 0)
    c.attention_factor = static_cast<float>(std::pow(yarn_magnitude(c.rope.factor, all), 2));
}

void read_attention(const ConfigReader& config, ModelConfig& c) {
  c.heads = static_cast<std::int32_t>(config.integer("num_attention_heads", 1, kHeadsMax));
  c.kv_heads = 1;
  c.query_rank = static_cast<std::int32_t>(config.integer_or("q_lora_rank", 0, 0, kWidthMax));
  c.latent = static_cast<std::int32_t>(config.integer("kv_lora_rank", 1, head_dim_max(c.heads) / 2));
  c.rope.dim = static_cast<std::int32_t>(config.integer("qk_rope_head_dim", 2, head_dim_max(c.heads) / 2));
  if (c.rope.dim % 2 != 0) config.invalid("qk_rope_head_dim", "an even number");
  c.head_dim = c.rope.dim + static_cast<std::int32_t>(config.integer("qk_nope_head_dim", 1, head_dim_max(c.heads) / 2));
  c.value_dim = static_cast<std::int32_t>(config.integer("v_head_dim", 1, head_dim_max(c.heads)));
  read_rope(config, c);
}

void read_groups(const ConfigReader& config, const std::string& groups, const std::string& kept, ModelConfig& c) {
  RouterConfig& r = c.router;
  r.groups = static_cast<std::int32_t>(config.integer_or(groups, 1, 1, c.experts));
  if (c.experts % r.groups != 0) config.invalid(groups, format("a divisor of {} experts", c.experts));
  r.groups_kept = static_cast<std::int32_t>(config.integer_or(kept, 1, 1, r.groups));
}

// No more than the groups that are kept have experts.
void read_chosen(const ConfigReader& config, const std::string& key, ModelConfig& c) {
  const std::int32_t eligible = c.experts / c.router.groups * c.router.groups_kept;
  c.experts_per_token = static_cast<std::int32_t>(config.integer(key, 1, eligible));
}

void read_router(const ConfigReader& config, ModelConfig& c) {
  RouterConfig& r = c.router;
  const std::string scoring = config.text_or("scoring_func", "sigmoid");
  if (scoring != "sigmoid" && scoring != "softmax") config.unsupported("scoring_func", "sigmoid, softmax");
  const std::string method = config.text_or("topk_method", "noaux_tc");
  if (method != "noaux_tc" && method != "greedy") config.unsupported("topk_method", "noaux_tc, greedy");
  r.score = scoring == "sigmoid" ? RouterScore::kSigmoid : RouterScore::kSoftmax;
  r.bias = method == "noaux_tc";
  if (r.bias) read_groups(config, "n_group", "topk_group", c);
  read_chosen(config, "num_experts_per_tok", c);
  c.renormalise = config.boolean_or("norm_topk_prob", true);
  r.scale = static_cast<float>(config.number_or("routed_scaling_factor", 1, 1e-6, 1e6));
}

void read_experts(const ConfigReader& config, ModelConfig& c) {
  c.routed.assign(c.layers, false);
  c.experts = static_cast<std::int32_t>(config.integer_or("n_routed_experts", 0, 0, kExpertsMax));
  if (c.experts == 0) return;
  const std::int64_t dense = config.integer_or("first_k_dense_replace", 0, 0, kLayersMax);
  const std::int64_t every = config.integer_or("moe_layer_freq", 1, 1, kLayersMax);
  for (std::int64_t i = dense; i < c.layers; ++i) c.routed[static_cast<std::size_t>(i)] = i % every == 0;
  c.expert_width = static_cast<std::int32_t>(config.integer("moe_intermediate_size", 1, kWidthMax));
  const std::int64_t shared = config.integer_or("n_shared_experts", 0, 0, kWidthMax / c.expert_width);
  c.shared_width = static_cast<std::int32_t>(shared) * c.expert_width;
  read_router(config, c);
}

}  // namespace

ModelConfig read_deepseek_v3_config(const ConfigReader& config) {
  if (config.text_or("hidden_act", "silu") != "silu") config.unsupported("hidden_act", "silu");
  if (config.boolean_or("attention_bias", false)) config.unsupported("attention_bias", "false");
  ModelConfig c;
  c.architecture = "deepseek_v3";
  c.layers = static_cast<std::int32_t>(config.integer("num_hidden_layers", 1, kLayersMax));
  c.hidden = static_cast<std::int32_t>(config.integer("hidden_size", 1, kWidthMax));
  c.vocab = static_cast<std::int32_t>(config.integer("vocab_size", 1, kVocabMax));
  c.context_tokens_max = config.integer("max_position_embeddings", 1, kContextMax);
  c.norm_eps = static_cast<float>(config.number_or("rms_norm_eps", 1e-6, 0, 1));
  read_attention(config, c);
  c.ffn_width = static_cast<std::int32_t>(config.integer("intermediate_size", 1, kWidthMax));
  read_experts(config, c);
  c.block_fp8 = read_block_fp8(config);
  c.next_token_layers = static_cast<std::int32_t>(config.integer_or("num_nextn_predict_layers", 0, 0, kLayersMax));
  c.tied_head = config.boolean_or("tie_word_embeddings", false);
  c.eos_ids = config.ids("eos_token_id", c.vocab);
  return c;
}

namespace {

// Metadata of llama.cpp's "deepseek2". Older files describe the heads as the model has them; newer ones describe the
// one cached head that all share, and the model's own under keys that end in _mla.
void read_gguf_attention(const ConfigReader& config, const std::string& p, ModelConfig& c) {
  c.heads = static_cast<std::int32_t>(config.integer(p + "attention.head_count", 1, kHeadsMax));
  c.kv_heads = 1;
  c.query_rank = static_cast<std::int32_t>(config.integer_or(p + "attention.q_lora_rank", 0, 0, kWidthMax));
  c.latent = static_cast<std::int32_t>(config.integer(p + "attention.kv_lora_rank", 1, head_dim_max(c.heads) / 2));
  const std::int64_t half = head_dim_max(c.heads) / 2;
  c.rope.dim = static_cast<std::int32_t>(config.integer(p + "rope.dimension_count", 2, half));
  if (c.rope.dim % 2 != 0) config.invalid(p + "rope.dimension_count", "an even number");
  const std::string mla = config.has(p + "attention.key_length_mla") ? "_mla" : "";
  const std::string key = p + "attention.key_length" + mla, value = p + "attention.value_length" + mla;
  c.head_dim = static_cast<std::int32_t>(config.integer(key, c.rope.dim + 1, c.rope.dim + half));
  c.value_dim = static_cast<std::int32_t>(config.integer(value, 1, head_dim_max(c.heads)));
}

void read_gguf_rope(const ConfigReader& config, const std::string& p, ModelConfig& c) {
  RopeConfig& rope = c.rope;
  rope.theta = config.number_or(p + "rope.freq_base", 10000, 1.001, 1e12);
  rope.interleaved = true;
  const std::string scaling = p + "rope.scaling.", type = config.text_or(scaling + "type", "none");
  if (type == "none") return;
  if (type != "yarn") config.unsupported(scaling + "type", "yarn, none");
  rope.yarn = true;
  rope.factor = config.number(scaling + "factor", 1, 1e6);
  rope.original_context = static_cast<double>(config.integer(scaling + "original_context_length", 1, kContextMax));
  rope.beta_fast = config.number_or(scaling + "yarn_beta_fast", 32, 1e-3, 1e6);
  rope.beta_slow = config.number_or(scaling + "yarn_beta_slow", 1, 1e-3, 1e6);
  if (rope.beta_fast < rope.beta_slow) config.invalid(scaling + "yarn_beta_fast", "at least yarn_beta_slow");
  // A tenth of mscale_all_dim, to which mscale is equal in these files.
  const double all = 10 * config.number_or(scaling + "yarn_log_multiplier", 0, 0, 10);
  c.rope.magnitude = all > 0 ? 1 : static_cast<float>(yarn_magnitude(rope.factor, 1));
  if (all > 0) c.attention_factor = static_cast<float>(std::pow(yarn_magnitude(rope.factor, all), 2));
}

void read_gguf_experts(const Checkpoint& checkpoint, const ConfigReader& config, const std::string& p, ModelConfig& c) {
  c.routed.assign(c.layers, false);
  c.experts = static_cast<std::int32_t>(config.integer_or(p + "expert_count", 0, 0, kExpertsMax));
  if (c.experts == 0) return;
  const auto dense = static_cast<std::int32_t>(config.integer_or(p + "leading_dense_block_count", 0, 0, c.layers));
  for (std::int32_t i = dense; i < c.layers; ++i) c.routed[static_cast<std::size_t>(i)] = true;
  c.expert_width = static_cast<std::int32_t>(config.integer(p + "expert_feed_forward_length", 1, kWidthMax));
  const std::int64_t shared = config.integer_or(p + "expert_shared_count", 0, 0, kWidthMax / c.expert_width);
  c.shared_width = static_cast<std::int32_t>(shared) * c.expert_width;
  RouterConfig& r = c.router;
  const std::int64_t scoring = config.integer_or(p + "expert_gating_func", 1, 0, 255);
  if (scoring != 1 && scoring != 2) config.unsupported(p + "expert_gating_func", "1 (softmax), 2 (sigmoid)");
  r.score = scoring == 2 ? RouterScore::kSigmoid : RouterScore::kSoftmax;
  r.bias = checkpoint.find(format("blk.{}.exp_probs_b.bias", dense)) != nullptr;
  read_groups(config, p + "expert_group_count", p + "expert_group_used_count", c);
  read_chosen(config, p + "expert_used_count", c);
  c.renormalise = config.boolean_or(p + "expert_weights_norm", false);
  r.scale = static_cast<float>(config.number_or(p + "expert_weights_scale", 1, 1e-6, 1e6));
}

}  // namespace

ModelConfig read_deepseek2_gguf_config(const Checkpoint& checkpoint, const ConfigReader& config) {
  const std::string p = "deepseek2.";
  ModelConfig c;
  c.architecture = "deepseek_v3";
  c.layers = static_cast<std::int32_t>(config.integer(p + "block_count", 1, kLayersMax));
  c.hidden = static_cast<std::int32_t>(config.integer(p + "embedding_length", 1, kWidthMax));
  c.vocab = read_gguf_vocab(checkpoint, config);
  c.context_tokens_max = config.integer(p + "context_length", 1, kContextMax);
  c.norm_eps = static_cast<float>(config.number(p + "attention.layer_norm_rms_epsilon", 0, 1));
  read_gguf_attention(config, p, c);
  read_gguf_rope(config, p, c);
  c.ffn_width = static_cast<std::int32_t>(config.integer(p + "feed_forward_length", 1, kWidthMax));
  read_gguf_experts(checkpoint, config, p, c);
  c.tied_head = !checkpoint.find("output.weight");
  c.eos_ids = config.ids("tokenizer.ggml.eos_token_id", c.vocab);
  return c;
}

// ---- weights

namespace {

struct LayerNames {
  std::string input_norm, q, q_down, q_norm, q_up, latent_down, latent_norm, kv_up, o, post_norm, router, router_bias;
  std::string key_up, value_up;  // what newer GGUF files have in place of kv_up: by head, the key's already transposed
  GatedFfnNames dense, shared;
  ExpertNames experts;
};

LayerNames safetensors_names(std::int32_t layer) {
  const std::string p = format("model.layers.{}.", layer), a = p + "self_attn.", m = p + "mlp.";
  return {.input_norm = p + "input_layernorm.weight",
          .q = a + "q_proj.weight",
          .q_down = a + "q_a_proj.weight",
          .q_norm = a + "q_a_layernorm.weight",
          .q_up = a + "q_b_proj.weight",
          .latent_down = a + "kv_a_proj_with_mqa.weight",
          .latent_norm = a + "kv_a_layernorm.weight",
          .kv_up = a + "kv_b_proj.weight",
          .o = a + "o_proj.weight",
          .post_norm = p + "post_attention_layernorm.weight",
          .router = m + "gate.weight",
          .router_bias = m + "gate.e_score_correction_bias",
          .key_up = {},
          .value_up = {},
          .dense = projections(m),
          .shared = projections(m + "shared_experts."),
          .experts = [=](std::int32_t expert) { return projections(m + format("experts.{}.", expert)); }};
}

LayerNames gguf_names(std::int32_t layer, std::int32_t experts) {
  const std::string p = format("blk.{}.", layer);
  const auto ffn = [&](const std::string& end) {
    return GatedFfnNames{p + "ffn_gate" + end, p + "ffn_up" + end, p + "ffn_down" + end};
  };
  return {.input_norm = p + "attn_norm.weight",
          .q = p + "attn_q.weight",
          .q_down = p + "attn_q_a.weight",
          .q_norm = p + "attn_q_a_norm.weight",
          .q_up = p + "attn_q_b.weight",
          .latent_down = p + "attn_kv_a_mqa.weight",
          .latent_norm = p + "attn_kv_a_norm.weight",
          .kv_up = p + "attn_kv_b.weight",
          .o = p + "attn_output.weight",
          .post_norm = p + "ffn_norm.weight",
          .router = p + "ffn_gate_inp.weight",
          .router_bias = p + "exp_probs_b.bias",
          .key_up = p + "attn_k_b.weight",
          .value_up = p + "attn_v_b.weight",
          .dense = ffn(".weight"),
          .shared = ffn("_shexp.weight"),
          .experts = stacked_experts(ffn("_exps.weight"), experts)};
}

struct Layer {
  NormWeight input_norm, query_norm, latent_norm, post_norm;
  std::unique_ptr<Weight> down;  // [query_rank + latent + rope, hidden]; without a query rank all heads in its place
  std::unique_ptr<Weight> q;     // [heads·head_dim, query_rank]
  std::vector<std::unique_ptr<Weight>> key_up;    // of each head, transposed: [latent, plain]
  std::vector<std::unique_ptr<Weight>> value_up;  // of each head: [value_dim, latent]
  std::vector<const Weight*> absorb, expand;      // the same, as ProjectHeads wants them
  std::unique_ptr<Weight> o;                      // [hidden, heads·value_dim]
  Router router;                                  // routed layers
  GatedFfn ffn;                                   // dense FFN, or the shared experts
  RoutedExperts experts;                          // routed layers
};

class DeepseekV3 final : public Model {
 public:
  DeepseekV3(const ModelConfig& config, CheckpointFormat format, const ModelShare& share, WeightReader& reader);

  void embed(const Workspace& w, const RowBatch& batch, const Residual& residual) const override {
    w.backend.run(EmbedRows{residual.stream, tables_.embedding.get(), batch.ids});
  }
  void attention(const Workspace& w, std::int32_t layer, const RowBatch& batch, const Residual& residual,
                 const HandOver& hand_over) const override;
  void route(const Workspace& w, std::int32_t layer, const HandOver& hand_over) const override {
    run_router(w, layers_[layer].router, config(), hand_over);
  }
  void experts(const Workspace& w, std::int32_t layer, const HandOver& hand_over,
               const FfnOutput& output) const override;
  void head(const Workspace& w, const RowBatch& batch, const Residual& residual, const Tensor& logits) const override {
    final_logits(w, batch, residual, tables_.final_norm, config().norm_eps, tables_.head(), logits);
  }
  std::size_t attention_scratch_bytes(std::int64_t rows_max, std::int64_t logits_max) const override {
    const ModelConfig& c = config();
    return scratch_bytes({rows_max * down_columns(), rows_max * c.heads * c.head_dim,
                          rows_max * c.heads * (c.latent + c.rope.dim), rows_max * c.heads * c.latent,
                          rows_max * c.heads * c.value_dim, rows_max * c.hidden, rows_max * c.experts,
                          logits_max * c.hidden, logits_max * c.hidden}) +
           linear_scratch(rows_max,
                          std::max<std::int64_t>({c.hidden, c.query_rank, std::int64_t{c.heads} * c.value_dim}));
  }
  std::size_t ffn_scratch_bytes(std::int64_t rows_max) const override { return ffn_scratch(config(), rows_max); }

 private:
  std::int64_t query_columns() const {  // of the down-projection
    return config().query_rank ? config().query_rank : std::int64_t{config().heads} * config().head_dim;
  }
  std::int64_t down_columns() const { return query_columns() + config().latent + config().rope.dim; }
  void load_attention(WeightReader& reader, const LayerNames& names, Layer& layer) const;
  void load_up_projections(WeightReader& reader, const LayerNames& names, Layer& layer) const;
  void load_ffn(WeightReader& reader, const LayerNames& names, Layer& layer, bool routed, const FfnShare& share) const;
  // Leaves the query in its own columns or below, and the latent and rotated key behind it, ready for the cache.
  Tensor project(const Workspace& w, const Layer& layer, const RowBatch& batch, const Tensor& hidden,
                 const Tensor& down) const;
  void attend_absorbed(const Workspace& w, std::int32_t index, const RowBatch& batch, const Tensor& q,
                       const Tensor& key, const Tensor& out) const;

  TokenTables tables_;
  Buffer inv_freq_;  // f32
  std::vector<Layer> layers_;
};

DeepseekV3::DeepseekV3(const ModelConfig& config, CheckpointFormat format, const ModelShare& share,
                       WeightReader& reader)
    : Model(config),
      inv_freq_(reader.constant(rope_inv_freq(config.rope))),
      layers_(static_cast<std::size_t>(config.layers)) {
  const bool gguf = format == CheckpointFormat::kGguf;
  if (share.attention) tables_ = load_token_tables(reader, config, format);
  for (std::int32_t i = 0; i < config.layers; ++i) {
    const LayerNames names = gguf ? gguf_names(i, config.experts) : safetensors_names(i);
    const bool routed = config.is_routed(i);
    if (share.attention) load_attention(reader, names, layers_[i]);
    if (share.attention && routed) layers_[i].router = load_router(reader, config, names.router, names.router_bias);
    if (share.ffn) load_ffn(reader, names, layers_[i], routed, share.experts);
  }
  weight_bytes_ = reader.bytes_packed();
  ignore_next_token_layers(reader, config);
  reader.ignore("*.rotary_emb.inv_freq");
}

void DeepseekV3::load_attention(WeightReader& reader, const LayerNames& names, Layer& layer) const {
  const ModelConfig& c = config();
  const std::int64_t q_columns = std::int64_t{c.heads} * c.head_dim;
  layer.input_norm = load_norm(reader, names.input_norm, c.hidden);
  layer.down = reader.matrix(Part::kAttention,
                             {{.name = c.query_rank ? names.q_down : names.q, .shape = {query_columns(), c.hidden}},
                              {.name = names.latent_down, .shape = {c.latent + c.rope.dim, c.hidden}}});
  if (c.query_rank) {
    layer.query_norm = load_norm(reader, names.q_norm, c.query_rank);
    layer.q = reader.matrix(Part::kAttention, {{.name = names.q_up, .shape = {q_columns, c.query_rank}}});
  }
  layer.latent_norm = load_norm(reader, names.latent_norm, c.latent);
  load_up_projections(reader, names, layer);
  layer.o =
      reader.matrix(Part::kAttention, {{.name = names.o, .shape = {c.hidden, std::int64_t{c.heads} * c.value_dim}}});
  layer.post_norm = load_norm(reader, names.post_norm, c.hidden);
}

void DeepseekV3::load_up_projections(WeightReader& reader, const LayerNames& names, Layer& layer) const {
  const ModelConfig& c = config();
  const std::int64_t plain = c.head_dim - c.rope.dim, rows = plain + c.value_dim;
  const bool apart = !names.key_up.empty() && reader.has(names.key_up);
  reader.check_count(apart ? names.key_up : names.kv_up, c.heads, "heads of a layer");
  for (std::int64_t h = 0; h < c.heads; ++h) {
    if (apart) {
      layer.key_up.push_back(
          reader.matrix(Part::kAttention, {{.name = names.key_up, .shape = {c.heads, c.latent, plain}, .expert = h}}));
      layer.value_up.push_back(reader.matrix(
          Part::kAttention, {{.name = names.value_up, .shape = {c.heads, c.value_dim, c.latent}, .expert = h}}));
    } else {  // head after head, the rows of the key and those of the value
      WeightName key{.name = names.kv_up, .shape = {c.heads * rows, c.latent}};
      key.row_begin = h * rows;
      key.row_end = key.row_begin + plain;
      WeightName value = key;
      value.row_begin = key.row_end;
      value.row_end = value.row_begin + c.value_dim;
      layer.key_up.push_back(reader.transposed(Part::kAttention, key));
      layer.value_up.push_back(reader.matrix(Part::kAttention, {value}));
    }
    layer.absorb.push_back(layer.key_up.back().get());
    layer.expand.push_back(layer.value_up.back().get());
  }
}

void DeepseekV3::load_ffn(WeightReader& reader, const LayerNames& names, Layer& layer, bool routed,
                          const FfnShare& share) const {
  const ModelConfig& c = config();
  if (routed) layer.experts = load_routed_experts(reader, names.experts, c, share);
  if (share.slice_count == 0 || (routed && c.shared_width == 0)) return;
  layer.ffn = routed ? load_gated_ffn(reader, Part::kSharedExpert, names.shared, c.hidden, c.shared_width,
                                      share.slice_first, share.slice_count)
                     : load_gated_ffn(reader, Part::kDenseFfn, names.dense, c.hidden, c.ffn_width, share.slice_first,
                                      share.slice_count);
}

// ---- attention

void DeepseekV3::attention(const Workspace& w, std::int32_t index, const RowBatch& batch, const Residual& residual,
                           const HandOver& hand_over) const {
  const ModelConfig& c = config();
  const Layer& layer = layers_[index];
  Arena::Scope scope(w.arena);
  const Tensor down = w.arena.f32(batch.rows(), down_columns());
  const Tensor attended = w.arena.f32(batch.rows(), std::int64_t{c.heads} * c.value_dim);
  const Tensor out = w.arena.f32(batch.rows(), c.hidden);

  enter_layer(w, residual, layer.input_norm, c.norm_eps, hand_over.hidden);
  const Tensor q = project(w, layer, batch, hand_over.hidden, down);
  attend_absorbed(w, index, batch, q, down.slice_columns(query_columns(), c.latent + c.rope.dim), attended);
  run_linear(w, out, attended, *layer.o, KSlices::whole(attended.shape[1]));
  w.backend.run(AddRmsNorm{hand_over.hidden, residual.stream, out, layer.post_norm.tensor(), c.norm_eps});
}

Tensor DeepseekV3::project(const Workspace& w, const Layer& layer, const RowBatch& batch, const Tensor& hidden,
                           const Tensor& down) const {
  const ModelConfig& c = config();
  const Tensor inv_freq(inv_freq_.data(), DType::kF32, {c.rope.dim / 2});
  const Tensor key = down.slice_columns(query_columns(), c.latent + c.rope.dim);
  const Tensor latent = key.slice_columns(0, c.latent);
  Tensor q = down.slice_columns(0, query_columns());
  run_linear(w, down, hidden, *layer.down, KSlices::whole(c.hidden));
  w.backend.run(RmsNorm{latent, latent, layer.latent_norm.tensor(), kInnerNormEps});
  if (c.query_rank) {
    w.backend.run(RmsNorm{q, q, layer.query_norm.tensor(), kInnerNormEps});
    const Tensor rank = q;
    q = w.arena.f32(batch.rows(), std::int64_t{c.heads} * c.head_dim);
    run_linear(w, q, rank, *layer.q, KSlices::whole(c.query_rank));
  }
  const auto rotate = [&](const Tensor& x, std::int32_t head_dim, std::int32_t first) {
    w.backend.run(Rope{x, batch.positions, inv_freq, head_dim, first, c.rope.interleaved, c.rope.magnitude});
  };
  rotate(q, c.head_dim, c.head_dim - c.rope.dim);
  rotate(key, c.latent + c.rope.dim, c.latent);
  return q;
}

void DeepseekV3::attend_absorbed(const Workspace& w, std::int32_t index, const RowBatch& batch, const Tensor& q,
                                 const Tensor& key, const Tensor& out) const {
  const ModelConfig& c = config();
  const Layer& layer = layers_[index];
  const Tensor absorbed = w.arena.f32(batch.rows(), c.heads * key.shape[1]);
  const Tensor latents = w.arena.f32(batch.rows(), std::int64_t{c.heads} * c.latent);
  w.backend.run(ProjectHeads{absorbed, q, layer.absorb});
  attend(w, index, batch, c, absorbed, key, {}, latents);
  w.backend.run(ProjectHeads{out, latents, layer.expand});
}

// ---- feed-forward

void DeepseekV3::experts(const Workspace& w, std::int32_t index, const HandOver& hand_over,
                         const FfnOutput& output) const {
  const Layer& layer = layers_[index];
  if (config().is_routed(index)) run_routed_experts(w, layer.experts, hand_over, output.slot_rows);
  if (output.partial) run_gated_ffn(w, layer.ffn, hand_over.hidden, output.partial);
}

}  // namespace

std::unique_ptr<Model> make_deepseek_v3(const ModelConfig& config, CheckpointFormat names, const ModelShare& share,
                                        WeightReader& reader) {
  return std::make_unique<DeepseekV3>(config, names, share, reader);
}

}  // namespace tandem
