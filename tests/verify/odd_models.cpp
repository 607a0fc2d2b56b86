// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/verify/odd_models.h"

#include <algorithm>
#include <cmath>

#include "base/format.h"
#include "base/rng.h"
#include "tests/checkpoint/bytes.h"
#include "tests/model/synthetic_checkpoint.h"

namespace tandem {

namespace {

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : rng_(seed) {}
  template <class T>
  T pick(std::initializer_list<T> values) {
    return values.begin()[rng_.below(values.size())];
  }
  std::int64_t number(std::initializer_list<std::int64_t> values) { return pick(values); }
  bool coin() { return rng_.below(2) == 0; }
  Rng& rng() { return rng_; }

 private:
  Rng rng_;
};

std::int64_t odd_hidden(Dice& dice) {
  return dice.number({45, 72, 100, 131, 136});
}

std::int64_t odd_width(Dice& dice) {
  return dice.number({9, 33, 80, 129, 200, 257, 300});
}

std::int64_t odd_vocab(Dice& dice) {
  return dice.number({131, 257});
}

// Heads and how many of them share a key.
void add_heads(Json& config, Dice& dice, const char* heads, const char* kv_heads) {
  const auto [all, kv] =
      dice.pick<std::pair<int, int>>({{1, 1}, {3, 1}, {3, 3}, {5, 1}, {6, 2}, {6, 3}, {7, 7}, {9, 3}, {12, 4}});
  config[heads] = all;
  config[kv_heads] = kv;
  config["head_dim"] = dice.number({6, 24, 40, 72, 96});
}

// Experts and how many a row chooses: one, all, or some.
std::pair<std::int64_t, std::int64_t> odd_experts(Dice& dice) {
  const std::int64_t experts = dice.number({3, 5, 7});
  return {experts, dice.pick<std::int64_t>({1, 2, experts - 1, experts})};
}

Json llama_like(Dice& dice, const char* type) {
  Json config = {{"model_type", type},
                 {"num_hidden_layers", dice.number({1, 2, 3})},
                 {"hidden_size", odd_hidden(dice)},
                 {"vocab_size", odd_vocab(dice)},
                 {"max_position_embeddings", 256},
                 {"intermediate_size", odd_width(dice)},
                 {"rms_norm_eps", 1e-5},
                 {"tie_word_embeddings", dice.coin()}};
  add_heads(config, dice, "num_attention_heads", "num_key_value_heads");
  return config;
}

Json llama(Dice& dice) {
  Json config = llama_like(dice, "llama");
  if (dice.coin())
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", 8.0},
                              {"low_freq_factor", 1.0},
                              {"high_freq_factor", 4.0},
                              {"original_max_position_embeddings", 64}};
  return config;
}

Json qwen3_moe(Dice& dice) {
  Json config = llama_like(dice, "qwen3_moe");
  const auto [experts, chosen] = odd_experts(dice);
  config.update({{"num_experts", experts},
                 {"num_experts_per_tok", chosen},
                 {"moe_intermediate_size", dice.number({9, 33, 70, 129})},
                 {"norm_topk_prob", dice.coin()},
                 {"decoder_sparse_step", 1},
                 {"mlp_only_layers", Json::array()}});
  if (config["num_hidden_layers"] > 1) config["mlp_only_layers"].push_back(dice.number({0, 1}));
  return config;
}

// Layers of which some, all or none have experts, as files of the Step family say it.
Json routed_layers(Dice& dice, std::int64_t layers) {
  if (layers == 1) return dice.coin() ? Json("0") : Json::array();
  return dice.pick<Json>({Json("1"), Json("0,1"), Json::array({layers - 1})});
}

void add_step3_experts(Json& config, Dice& dice) {
  const auto [experts, chosen] = odd_experts(dice);
  config["moe_layers_enum"] = routed_layers(dice, config["num_hidden_layers"]);
  config.update({{"moe_num_experts", experts},
                 {"moe_top_k", chosen},
                 {"moe_intermediate_size", dice.number({9, 33, 70, 129})},
                 {"share_expert_dim", odd_width(dice)},
                 {"norm_expert_weight", dice.coin()}});
}

Json step3(Dice& dice) {
  Json config = {{"model_type", "step3_text"},
                 {"num_hidden_layers", dice.number({1, 2, 3})},
                 {"hidden_size", odd_hidden(dice)},
                 {"vocab_size", odd_vocab(dice)},
                 {"max_position_embedding", 256},
                 {"intermediate_size", odd_width(dice)},
                 {"num_attention_heads", dice.number({1, 3, 5, 7})},
                 {"head_dim", dice.number({6, 24, 40, 72, 96})},
                 {"share_q_dim", dice.number({17, 33, 50, 130})}};
  add_step3_experts(config, dice);
  return config;
}

Json step3_vl(Dice& dice) {
  Json text = step3(dice);
  const std::int64_t heads = dice.number({1, 3, 5});
  return {{"model_type", "step3_vl"},
          {"image_token_id", text["vocab_size"].get<int>() - 1},
          {"understand_projector_stride", 2},
          {"projector_bias", dice.coin()},
          {"vision_config",
           {{"hidden_size", heads * dice.number({3, 6})},
            {"output_hidden_size", dice.number({5, 9})},
            {"num_hidden_layers", 1},
            {"num_attention_heads", heads},
            {"intermediate_size", dice.number({13, 33})}}},
          {"text_config", text}};
}

Json deepseek_v3(Dice& dice) {
  const auto [experts, groups, kept, chosen] =
      dice.pick<std::array<int, 4>>({{6, 3, 1, 2}, {6, 2, 1, 3}, {6, 3, 2, 1}, {7, 1, 1, 7}, {10, 5, 3, 5}});
  Json config = {{"model_type", "deepseek_v3"},
                 {"num_hidden_layers", dice.number({1, 2, 3})},
                 {"hidden_size", odd_hidden(dice)},
                 {"vocab_size", odd_vocab(dice)},
                 {"max_position_embeddings", 256},
                 {"num_attention_heads", dice.number({1, 3, 5})},
                 {"q_lora_rank", dice.pick<Json>({Json(), Json(17), Json(33)})},
                 {"kv_lora_rank", dice.number({17, 20, 33, 130})},
                 {"qk_nope_head_dim", dice.number({5, 10, 40})},
                 {"qk_rope_head_dim", dice.number({2, 6, 24})},
                 {"v_head_dim", dice.number({3, 7, 40})},
                 {"intermediate_size", odd_width(dice)},
                 {"first_k_dense_replace", dice.number({0, 1, 1})},
                 {"n_routed_experts", experts},
                 {"num_experts_per_tok", chosen},
                 {"moe_intermediate_size", dice.number({9, 33, 70, 129})},
                 {"n_shared_experts", dice.number({0, 1, 3})},
                 {"n_group", groups},
                 {"topk_group", kept},
                 {"routed_scaling_factor", 2.5},
                 {"norm_topk_prob", dice.coin()}};
  if (dice.coin())
    config["rope_scaling"] = {{"type", "yarn"},
                              {"factor", 40},
                              {"mscale", 1.0},
                              {"mscale_all_dim", 0.7},
                              {"original_max_position_embeddings", 64}};
  return config;
}

Json step3p5(Dice& dice) {
  const std::int64_t layers = dice.number({1, 2, 3});
  Json config = {{"model_type", "step3p5"},
                 {"num_hidden_layers", layers},
                 {"hidden_size", odd_hidden(dice)},
                 {"vocab_size", odd_vocab(dice)},
                 {"max_position_embeddings", 256},
                 {"intermediate_size", odd_width(dice)},
                 {"moe_router_activation", dice.coin() ? "sigmoid" : "softmax"},
                 {"use_moe_router_bias", true},
                 {"moe_router_scaling_factor", 3.0},
                 {"sliding_window", dice.number({1, 5, 63, 64, 65, 100})},
                 {"swiglu_limits", 0.7},
                 {"partial_rotary_factors", dice.pick({0.5, 1.0})}};
  add_heads(config, dice, "num_attention_heads", "num_attention_groups");
  config["head_dim"] = dice.number({24, 40, 72, 96});
  const int kv = dice.pick({1, 3});
  config["attention_other_setting"] = {{"num_attention_heads", 3 * kv}, {"num_attention_groups", kv}};
  add_step3_experts(config, dice);
  for (std::int64_t i = 0; i < layers; ++i)
    config["layer_types"].push_back(dice.coin() ? "full_attention" : "sliding_attention");
  return config;
}

Json config_of(OddFamily family, Dice& dice) {
  switch (family) {
    case OddFamily::kLlama:
    case OddFamily::kLlamaGguf:
      return llama(dice);
    case OddFamily::kQwen3:
      return llama_like(dice, "qwen3");
    case OddFamily::kQwen3Moe:
      return qwen3_moe(dice);
    case OddFamily::kStep3:
    case OddFamily::kStep3Fp8:
      return step3(dice);
    case OddFamily::kStep3Vl:
      return step3_vl(dice);
    case OddFamily::kDeepseekV3:
    case OddFamily::kDeepseekV3Fp8:
      return deepseek_v3(dice);
    case OddFamily::kStep3p5:
    case OddFamily::kStep3p5Fp8:
      return step3p5(dice);
  }
  return {};
}

// ---- experts that everyone or nobody chooses

// The first column of every embedding is large and of one sign, so it stays so through the layers, and a router that
// looks at nothing else for an expert treats all rows alike.
void force_choices(SyntheticTensors& tensors, OddModel& model, std::int64_t experts, std::int64_t chosen) {
  model.crowded = static_cast<std::int32_t>(experts) - 1;
  if (chosen < experts) model.lonely = 0;
  for (SyntheticTensor& tensor : tensors) {
    const std::int64_t columns = tensor.shape.row_elements();
    if (tensor.name == "model.embed_tokens.weight") {
      tensor.scale = 4;
      tensor.values = synthetic_values(tensor);
      for (std::int64_t row = 0; row < tensor.shape[0]; ++row)
        tensor.values[static_cast<std::size_t>(row * columns)] = 16;
    } else if (tensor.name.ends_with(".gate.weight")) {
      tensor.values = synthetic_values(tensor);
      tensor.values[static_cast<std::size_t>(model.crowded * columns)] = 1.6f;
      if (model.lonely >= 0) tensor.values[static_cast<std::size_t>(model.lonely * columns)] = -1.6f;
    } else if (tensor.name.ends_with("_bias")) {  // of a router, where it has one
      tensor.values = synthetic_values(tensor);
      tensor.values[static_cast<std::size_t>(model.crowded)] += 2;
      if (model.lonely >= 0) tensor.values[static_cast<std::size_t>(model.lonely)] -= 3;
    }
  }
}

// Norms that weigh with 1 + what is stored are near one when that is near zero.
void centre_norms(SyntheticTensors& tensors) {
  for (SyntheticTensor& tensor : tensors) {
    if (!tensor.name.ends_with("norm.weight")) continue;
    tensor.values = synthetic_values(tensor);
    for (float& value : tensor.values) value -= 1;
  }
}

void write_safetensors_model(OddModel& model, Json config, Dice& dice, bool fp8) {
  SyntheticTensors tensors = tensors_for(config);
  if (config["model_type"] == "step3p5") centre_norms(tensors);
  const Json& text = config.contains("text_config") ? config["text_config"] : config;
  const auto number = [&](std::initializer_list<const char*> keys) -> std::int64_t {
    for (const char* key : keys)
      if (text.contains(key)) return text[key];
    return 0;
  };
  const std::int64_t experts = number({"num_experts", "moe_num_experts", "n_routed_experts"});
  const bool routed = std::ranges::any_of(tensors, [](const auto& t) { return t.name.ends_with(".gate.weight"); });
  if (routed && dice.coin()) force_choices(tensors, model, experts, number({"num_experts_per_tok", "moe_top_k"}));
  for (SyntheticTensor& tensor : tensors)
    if (tensor.shape.rank > 1 && dice.coin()) tensor.dtype = DType::kBF16;
  if (fp8) make_block_fp8(config, tensors);
  write_model(model.folder, config, tensors);
  model.checkpoint = Checkpoint::open(model.folder.path());
}

// ---- GGUF

// A factor of about size, as f16.
std::uint16_t half_near(double size, Rng& rng) {
  const int exponent = std::max(static_cast<int>(std::floor(std::log2(size))), -14);
  return static_cast<std::uint16_t>((exponent + 15) << 10 | static_cast<int>(rng.below(1024)));
}

// Where the factors of a block stand, and what a value of it is to its factor, roughly: deviation and mean.
struct BlockForm {
  std::size_t factor_at, minimum_at;  // minimum_at 0: none
  double deviation, minimum_per_factor;
};

BlockForm form_of(DType dtype) {
  switch (dtype) {
    case DType::kQ4_1:
      return {0, 2, 4.6, -7.5};
    case DType::kQ4_K:
      return {0, 2, 31 * 4.6, 7.5};
    case DType::kQ5_K:
      return {0, 2, 31 * 9.2, 15.5};
    case DType::kQ6_K:
      return {208, 0, 74 * 18.5, 0};
    case DType::kQ8_0:
      return {0, 0, 74, 0};
    default:  // Q4_0
      return {0, 0, 4.6, 0};
  }
}

GgufTensor quantised(const std::string& name, const Shape& shape, DType dtype, Rng& rng) {
  GgufTensor tensor{.name = name, .shape = shape, .values = {}, .dtype = dtype, .bytes = {}};
  const BlockForm form = form_of(dtype);
  const double factor = 1 / (form.deviation * std::sqrt(static_cast<double>(shape[1])));
  Bytes bytes;
  const std::int64_t blocks = shape.elements() / static_cast<std::int64_t>(traits(dtype).block_elements);
  for (std::int64_t i = 0; i < blocks; ++i) {
    std::vector<std::byte> block(traits(dtype).block_bytes);
    for (std::byte& byte : block) byte = static_cast<std::byte>(rng.below(256));
    const std::uint16_t d = half_near(factor, rng);
    std::memcpy(block.data() + form.factor_at, &d, sizeof d);
    if (form.minimum_at > 0) {
      std::uint16_t m = half_near(factor * std::abs(form.minimum_per_factor), rng);
      if (form.minimum_per_factor < 0) m |= 0x8000;
      std::memcpy(block.data() + form.minimum_at, &m, sizeof m);
    }
    bytes.data().insert(bytes.data().end(), block.begin(), block.end());
  }
  tensor.bytes = std::move(bytes.data());
  return tensor;
}

// Rows are whole blocks; what has 256 columns may be of a K type.
DType type_for(std::int64_t columns, Dice& dice) {
  if (columns % 256 == 0)
    return dice.pick({DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1});
  return dice.pick({DType::kQ8_0, DType::kQ4_0, DType::kQ4_1});
}

void write_llama_gguf(OddModel& model, const Json& config, Dice& dice) {
  const std::int64_t hidden = dice.number({96, 160, 256}), width = dice.number({96, 160, 288, 512});
  const std::int64_t heads = config["num_attention_heads"], kv_heads = config["num_key_value_heads"];
  const std::int64_t dim = dice.number({32, 64, 96}), layers = config["num_hidden_layers"];
  std::vector<GgufTensor> tensors;
  const auto matrix = [&](const std::string& name, std::int64_t rows, std::int64_t columns) {
    tensors.push_back(quantised(name + ".weight", {rows, columns}, type_for(columns, dice), dice.rng()));
  };
  const auto norm = [&](const std::string& name) {
    tensors.push_back({name + ".weight", {hidden}, synthetic_values({name, {hidden}})});
  };
  matrix("token_embd", config["vocab_size"], hidden);
  if (!config["tie_word_embeddings"].get<bool>()) matrix("output", config["vocab_size"], hidden);
  norm("output_norm");
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::string p = format("blk.{}.", i);
    norm(p + "attn_norm");
    matrix(p + "attn_q", heads * dim, hidden);
    matrix(p + "attn_k", kv_heads * dim, hidden);
    matrix(p + "attn_v", kv_heads * dim, hidden);
    matrix(p + "attn_output", hidden, heads * dim);
    norm(p + "ffn_norm");
    matrix(p + "ffn_gate", width, hidden);
    matrix(p + "ffn_up", width, hidden);
    matrix(p + "ffn_down", hidden, width);
  }
  const Json metadata = {{"general.architecture", "llama"},
                         {"llama.block_count", layers},
                         {"llama.embedding_length", hidden},
                         {"llama.context_length", 256},
                         {"llama.feed_forward_length", width},
                         {"llama.attention.head_count", heads},
                         {"llama.attention.head_count_kv", kv_heads},
                         {"llama.attention.key_length", dim},
                         {"llama.attention.value_length", dim},
                         {"llama.rope.dimension_count", dim},
                         {"llama.attention.layer_norm_rms_epsilon", 1e-5}};
  model.sizes = to_line(metadata);
  model.checkpoint = Checkpoint::open(write_gguf(model.folder, metadata, tensors));
}

}  // namespace

std::string name(OddFamily family) {
  static constexpr const char* kNames[] = {"llama",           "llama_gguf", "qwen3",      "qwen3_moe",
                                           "step3",           "step3_fp8",  "step3_vl",   "deepseek_v3",
                                           "deepseek_v3_fp8", "step3p5",    "step3p5_fp8"};
  return kNames[static_cast<std::size_t>(family)];
}

std::unique_ptr<OddModel> make_odd_model(OddFamily family, std::uint64_t seed) {
  Dice dice(mix64(1000 * static_cast<std::uint64_t>(family) + seed));
  auto model = std::make_unique<OddModel>();
  const Json config = config_of(family, dice);
  model->sizes = to_line(config);
  if (family == OddFamily::kLlamaGguf)
    write_llama_gguf(*model, config, dice);
  else
    write_safetensors_model(*model, config, dice, name(family).ends_with("_fp8"));
  return model;
}

}  // namespace tandem
