// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Step-3.5-Flash text:  x ← x + Wo (sigmoid(Wg n(x)) · GQA(RoPE(nq(Wq n(x))), RoPE(nk(Wk n(x))), Wv n(x)));
//                       x ← x + FFN(n(x))
//
//   layers   full attention over everything, or over a sliding window with more heads; each kind has its rotary base
//            and its share of a head that rotates
//   gates    one per head and token
//   norms    weigh with 1 + weight; nq and nk are over each head
//   FFN      dense, or experts chosen by sigmoid + bias, their sigmoids made to sum to 1, times a factor; plus a shared
//            expert. In some layers the SwiGLU is limited.
#include "model/step3p5.h"

#include <algorithm>

#include "base/format.h"
#include "model/decoder_config.h"
#include "model/layer_pieces.h"

namespace tandem {

// ---- hyper-parameters

namespace {

constexpr const char* kFull = "full_attention";
constexpr const char* kSliding = "sliding_attention";

// One number per layer, from a list (which may go on for layers behind the model's own), one for all, or the default.
std::vector<double> read_per_layer(const ConfigReader& config, const std::string& key, std::int32_t layers,
                                   double fallback, double low, double high) {
  if (!config.has(key) || !config.raw(key).is_array())
    return std::vector<double>(static_cast<std::size_t>(layers), config.number_or(key, fallback, low, high));
  const std::string expected = format("at least {} numbers in {} … {}", layers, low, high);
  std::vector<double> values;
  for (const Json& value : config.raw(key)) {
    if (!value.is_number() || !(value.get<double>() >= low && value.get<double>() <= high))
      config.invalid(key, expected);
    values.push_back(value.get<double>());
  }
  if (std::ssize(values) < layers) config.invalid(key, expected);
  values.resize(static_cast<std::size_t>(layers));
  return values;
}

void read_window(const ConfigReader& config, ModelConfig& c) {
  c.window.layers.assign(c.layers, false);
  if (!config.has("layer_types")) return;
  const Json& types = config.raw("layer_types");
  if (!types.is_array() || std::ssize(types) < c.layers)
    config.invalid("layer_types", format("at least {} names", c.layers));
  for (std::int32_t i = 0; i < c.layers; ++i) {
    if (types[i] != kFull && types[i] != kSliding) config.unsupported("layer_types", format("{}, {}", kFull, kSliding));
    c.window.layers[i] = types[i] == kSliding;
  }
  if (std::ranges::count(c.window.layers, true) == 0) return;
  c.window.tokens = static_cast<std::int32_t>(config.integer("sliding_window", 1, kContextMax));
  c.window.heads = c.heads;
  c.window.kv_heads = c.kv_heads;
  if (!config.has("attention_other_setting")) return;
  if (!config.raw("attention_other_setting").is_object()) config.invalid("attention_other_setting", "an object");
  const ConfigReader other(config.raw("attention_other_setting"), config.what() + ": attention_other_setting");
  if (other.text_or("attention_type", kSliding) != kSliding) other.unsupported("attention_type", kSliding);
  c.window.heads = static_cast<std::int32_t>(other.integer_or("num_attention_heads", c.heads, 1, kHeadsMax));
  c.window.kv_heads = static_cast<std::int32_t>(other.integer_or("num_attention_groups", c.kv_heads, 1, kHeadsMax));
  if (c.window.heads % c.window.kv_heads != 0)
    other.invalid("num_attention_groups", format("a divisor of {} heads", c.window.heads));
  for (const char* key : {"head_dim", "true_head_dim"})
    if (other.integer_or(key, c.head_dim, 1, kWidthMax) != c.head_dim) other.unsupported(key, format("{}", c.head_dim));
}

// The rescaling of rope_scaling is for the kinds of layers that yarn_only_types names, whatever the rule is.
bool rescales(const ConfigReader& config, bool windowed) {
  const std::string key = "yarn_only_types";
  if (!config.has(key)) return true;
  if (!config.raw(key).is_array()) config.invalid(key, "a list of names");
  if (config.raw(key).empty()) return true;
  return std::ranges::find(config.raw(key), Json(windowed ? kSliding : kFull)) != config.raw(key).end();
}

void read_ropes(const ConfigReader& config, ModelConfig& c) {
  if (config.has("rope_parameters")) config.unsupported("rope_parameters", "rope_theta and rope_scaling");
  const std::vector<double> thetas = read_per_layer(config, "rope_theta", c.layers, 10000, 1, 1e12);
  const std::vector<double> parts = read_per_layer(config, "partial_rotary_factors", c.layers, 1, 0, 1);
  const Json none = Json::object();
  Json scaling = Json::object();
  if (config.has("rope_scaling")) scaling["rope_scaling"] = config.raw("rope_scaling");
  for (std::int32_t i = 0; i < c.layers; ++i) {
    const auto dim = static_cast<std::int32_t>(c.head_dim * parts[i]);
    if (dim < 2 || dim % 2 != 0)
      config.invalid("partial_rotary_factors", format("an even number of the {} elements of a head", c.head_dim));
    RopeConfig rope =
        read_rope_config(ConfigReader(rescales(config, c.is_windowed(i)) ? scaling : none, config.what()), dim);
    rope.theta = thetas[i];
    c.layer_ropes.push_back(rope);
  }
}

void read_experts(const ConfigReader& config, ModelConfig& c) {
  c.routed = read_moe_layers_enum(config, c.layers);
  if (!config.boolean_or("use_moe", true)) c.routed.assign(c.layers, false);
  c.expert_limits = read_per_layer(config, "swiglu_limits", c.layers, 0, 0, 1e6);
  c.shared_limits = read_per_layer(config, "swiglu_limits_shared", c.layers, 0, 0, 1e6);
  if (std::ranges::count(c.routed, true) == 0) return;
  const std::string activation = config.text_or("moe_router_activation", "softmax");
  if (activation != "sigmoid" && activation != "softmax")
    config.unsupported("moe_router_activation", "sigmoid, softmax");
  c.experts = static_cast<std::int32_t>(config.integer("moe_num_experts", 1, kExpertsMax));
  c.experts_per_token = static_cast<std::int32_t>(config.integer("moe_top_k", 1, c.experts));
  c.expert_width = static_cast<std::int32_t>(config.integer("moe_intermediate_size", 1, kWidthMax));
  c.shared_width = static_cast<std::int32_t>(config.integer("share_expert_dim", 1, kWidthMax));
  c.renormalise = config.boolean_or("norm_expert_weight", true);
  c.router.score = activation == "sigmoid" ? RouterScore::kSigmoid : RouterScore::kSoftmax;
  c.router.bias = config.boolean_or("use_moe_router_bias", false);
  c.router.scale = static_cast<float>(config.number_or("moe_router_scaling_factor", 1, 1e-6, 1e6));
}

}  // namespace

ModelConfig read_step3p5_config(const ConfigReader& config) {
  if (config.text_or("hidden_act", "silu") != "silu") config.unsupported("hidden_act", "silu");
  if (config.text_or("att_impl_type", "GQA") != "GQA") config.unsupported("att_impl_type", "GQA");
  for (const char* key : {"use_qk_norm", "use_head_wise_attn_gate", "zero_centered"})
    if (!config.boolean_or(key, true)) config.unsupported(key, "true");
  ModelConfig c;
  c.architecture = "step3p5";
  c.layers = static_cast<std::int32_t>(config.integer("num_hidden_layers", 1, kLayersMax));
  c.hidden = static_cast<std::int32_t>(config.integer("hidden_size", 1, kWidthMax));
  c.vocab = static_cast<std::int32_t>(config.integer("vocab_size", 1, kVocabMax));
  c.context_tokens_max = config.integer("max_position_embeddings", 1, kContextMax);
  c.norm_eps = static_cast<float>(config.number_or("rms_norm_eps", 1e-5, 0, 1));
  c.heads = static_cast<std::int32_t>(config.integer("num_attention_heads", 1, kHeadsMax));
  c.kv_heads = static_cast<std::int32_t>(config.integer_or("num_attention_groups", c.heads, 1, kHeadsMax));
  if (c.heads % c.kv_heads != 0) config.invalid("num_attention_groups", format("a divisor of {} heads", c.heads));
  c.head_dim = static_cast<std::int32_t>(config.integer("head_dim", 2, head_dim_max(kHeadsMax)));
  read_window(config, c);
  read_ropes(config, c);
  c.ffn_width = static_cast<std::int32_t>(config.integer("intermediate_size", 1, kWidthMax));
  read_experts(config, c);
  c.block_fp8 = read_block_fp8(config);
  c.next_token_layers = static_cast<std::int32_t>(config.integer_or("num_nextn_predict_layers", 0, 0, kLayersMax));
  c.tied_head = config.boolean_or("tie_word_embeddings", false);
  c.eos_ids = config.ids("eos_token_id", c.vocab);
  return c;
}

// ---- weights

namespace {

// A norm that weighs with 1 + what is stored.
NormWeight load_centred_norm(WeightReader& reader, const std::string& name, std::int64_t elements) {
  return load_norm(reader, name, elements, Part::kNorm, 1);
}

struct Layer {
  std::int64_t q_columns = 0, kv_columns = 0, heads = 0;
  NormWeight input_norm, query_norm, key_norm, post_norm;
  std::unique_ptr<Weight> qkvg;  // [(heads + 2·kv_heads)·dim + heads, hidden]: q, k, v, gates
  std::unique_ptr<Weight> o;     // [hidden, heads·dim]
  Buffer inv_freq;               // f32, one for each pair of the layer's rope
  Router router;                 // routed layers
  GatedFfn ffn;                  // dense FFN, or the shared expert
  RoutedExperts experts;         // routed layers
};

class Step3p5 final : public Model {
 public:
  Step3p5(const ModelConfig& config, const ModelShare& share, WeightReader& reader);

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
  std::size_t attention_scratch_bytes(std::int64_t rows_max, std::int64_t logits_max) const override;
  std::size_t ffn_scratch_bytes(std::int64_t rows_max) const override { return ffn_scratch(config(), rows_max); }

 private:
  void load_attention(WeightReader& reader, std::int32_t index, Layer& layer) const;
  void load_ffn(WeightReader& reader, std::int32_t index, const FfnShare& share, Layer& layer) const;

  TokenTables tables_;
  std::vector<Layer> layers_;
};

Step3p5::Step3p5(const ModelConfig& config, const ModelShare& share, WeightReader& reader)
    : Model(config), layers_(static_cast<std::size_t>(config.layers)) {
  if (share.attention) tables_ = load_token_tables(reader, config, CheckpointFormat::kSafetensors, 1);
  for (std::int32_t i = 0; i < config.layers; ++i) {
    Layer& layer = layers_[i];
    layer.heads = config.heads_of(i);
    layer.q_columns = layer.heads * config.head_dim;
    layer.kv_columns = std::int64_t{config.kv_heads_of(i)} * config.head_dim;
    layer.inv_freq = reader.constant(rope_inv_freq(config.layer_ropes[i]));
    if (share.attention) load_attention(reader, i, layer);
    if (share.ffn) load_ffn(reader, i, share.experts, layer);
  }
  weight_bytes_ = reader.bytes_packed();
  ignore_next_token_layers(reader, config);
}

void Step3p5::load_attention(WeightReader& reader, std::int32_t index, Layer& layer) const {
  const ModelConfig& c = config();
  const std::string p = format("model.layers.{}.", index), a = p + "self_attn.";
  layer.input_norm = load_centred_norm(reader, p + "input_layernorm.weight", c.hidden);
  layer.qkvg = reader.matrix(Part::kAttention, {{.name = a + "q_proj.weight", .shape = {layer.q_columns, c.hidden}},
                                                {.name = a + "k_proj.weight", .shape = {layer.kv_columns, c.hidden}},
                                                {.name = a + "v_proj.weight", .shape = {layer.kv_columns, c.hidden}},
                                                {.name = a + "g_proj.weight", .shape = {layer.heads, c.hidden}}});
  layer.query_norm = load_centred_norm(reader, a + "q_norm.weight", c.head_dim);
  layer.key_norm = load_centred_norm(reader, a + "k_norm.weight", c.head_dim);
  layer.o = reader.matrix(Part::kAttention, {{.name = a + "o_proj.weight", .shape = {c.hidden, layer.q_columns}}});
  layer.post_norm = load_centred_norm(reader, p + "post_attention_layernorm.weight", c.hidden);
  if (c.is_routed(index)) layer.router = load_router(reader, c, p + "moe.gate.weight", p + "moe.router_bias");
}

void Step3p5::load_ffn(WeightReader& reader, std::int32_t index, const FfnShare& share, Layer& layer) const {
  const ModelConfig& c = config();
  const auto names = [&](const char* block) { return projections(format("model.layers.{}.{}.", index, block)); };
  const bool routed = c.is_routed(index);
  if (routed) layer.experts = load_routed_experts(reader, stacked_experts(names("moe"), c.experts), c, share);
  if (share.slice_count == 0) return;
  layer.ffn = routed ? load_gated_ffn(reader, Part::kSharedExpert, names("share_expert"), c.hidden, c.shared_width,
                                      share.slice_first, share.slice_count)
                     : load_gated_ffn(reader, Part::kDenseFfn, names("mlp"), c.hidden, c.ffn_width, share.slice_first,
                                      share.slice_count);
}

// ---- attention

std::size_t Step3p5::attention_scratch_bytes(std::int64_t rows_max, std::int64_t logits_max) const {
  const ModelConfig& c = config();
  std::int64_t q_columns = 0, all_columns = 0;
  for (const Layer& layer : layers_) {
    q_columns = std::max(q_columns, layer.q_columns);
    all_columns = std::max(all_columns, layer.q_columns + 2 * layer.kv_columns + layer.heads);
  }
  return scratch_bytes({rows_max * all_columns, rows_max * q_columns, rows_max * c.hidden, rows_max * c.experts,
                        logits_max * c.hidden, logits_max * c.hidden}) +
         linear_scratch(rows_max, std::max<std::int64_t>(c.hidden, q_columns));
}

void Step3p5::attention(const Workspace& w, std::int32_t index, const RowBatch& batch, const Residual& residual,
                        const HandOver& hand_over) const {
  const ModelConfig& c = config();
  const Layer& layer = layers_[index];
  const std::int64_t rows = batch.rows(), q_columns = layer.q_columns, kv_columns = layer.kv_columns;
  const Tensor inv_freq(layer.inv_freq.data(), DType::kF32, {c.layer_ropes[index].dim / 2});
  Arena::Scope scope(w.arena);
  const Tensor qkvg = w.arena.f32(rows, q_columns + 2 * kv_columns + layer.heads);
  const Tensor attended = w.arena.f32(rows, q_columns), out = w.arena.f32(rows, c.hidden);
  const Tensor q = qkvg.slice_columns(0, q_columns), k = qkvg.slice_columns(q_columns, kv_columns);
  const Tensor v = qkvg.slice_columns(q_columns + kv_columns, kv_columns);
  const Tensor gates = qkvg.slice_columns(q_columns + 2 * kv_columns, layer.heads);

  enter_layer(w, residual, layer.input_norm, c.norm_eps, hand_over.hidden);
  run_linear(w, qkvg, hand_over.hidden, *layer.qkvg, KSlices::whole(c.hidden));
  w.backend.run(RmsNorm{q, q, layer.query_norm.tensor(), c.norm_eps});
  w.backend.run(RmsNorm{k, k, layer.key_norm.tensor(), c.norm_eps});
  w.backend.run(Rope{q, batch.positions, inv_freq, c.head_dim, 0, false, c.layer_ropes[index].magnitude});
  w.backend.run(Rope{k, batch.positions, inv_freq, c.head_dim, 0, false, c.layer_ropes[index].magnitude});
  attend(w, index, batch, c, q, k, v, attended);
  w.backend.run(GateHeads{attended, gates});
  run_linear(w, out, attended, *layer.o, KSlices::whole(q_columns));
  w.backend.run(AddRmsNorm{hand_over.hidden, residual.stream, out, layer.post_norm.tensor(), c.norm_eps});
}

// ---- feed-forward

void Step3p5::experts(const Workspace& w, std::int32_t index, const HandOver& hand_over,
                      const FfnOutput& output) const {
  const Layer& layer = layers_[index];
  const ModelConfig& c = config();
  if (c.is_routed(index))
    run_routed_experts(w, layer.experts, hand_over, output.slot_rows, static_cast<float>(c.expert_limits[index]));
  if (output.partial)
    run_gated_ffn(w, layer.ffn, hand_over.hidden, output.partial, static_cast<float>(c.shared_limits[index]));
}

}  // namespace

std::unique_ptr<Model> make_step3p5(const ModelConfig& config, const ModelShare& share, WeightReader& reader) {
  return std::make_unique<Step3p5>(config, share, reader);
}

}  // namespace tandem
