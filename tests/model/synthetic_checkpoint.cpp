// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/model/synthetic_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "base/format.h"
#include "base/rng.h"
#include "base/scalar.h"
#include "checkpoint/gguf_types.h"
#include "checkpoint/safetensors_writer.h"
#include "model/tensor_list.h"
#include "ops/weight.h"
#include "tests/checkpoint/bytes.h"

namespace tandem {

namespace {

std::uint64_t seed_of(std::string_view name) {
  std::uint64_t seed = 1;
  for (const char c : name) seed = mix64(seed + static_cast<unsigned char>(c));
  return seed;
}

std::vector<std::byte> stored(const SyntheticTensor& tensor) {
  Bytes bytes;
  for (const float value : synthetic_values(tensor)) {
    if (tensor.dtype == DType::kF32)
      bytes.number(value);
    else if (tensor.dtype == DType::kBF16)
      bytes.number(f32_to_bf16(value));
    else if (tensor.dtype == DType::kF8E4M3)
      bytes.number(f32_to_f8_e4m3(value));
    else if (tensor.dtype == DType::kI32)
      bytes.number(static_cast<std::int32_t>(value));
    else
      throw std::invalid_argument("a type that synthetic tensors do not have");
  }
  return std::move(bytes.data());
}

void add_gated_ffn(SyntheticTensors& tensors, const std::string& prefix, const Shape& in, const Shape& out) {
  tensors.push_back({prefix + "gate_proj.weight", in});
  tensors.push_back({prefix + "up_proj.weight", in});
  tensors.push_back({prefix + "down_proj.weight", out});
}

}  // namespace

std::vector<float> synthetic_values(const SyntheticTensor& tensor) {
  if (!tensor.values.empty()) return tensor.values;
  Rng rng(seed_of(tensor.values_of.empty() ? tensor.name : tensor.values_of));
  const bool is_norm = tensor.shape.rank == 1;
  const auto columns = static_cast<float>(tensor.shape[std::max(tensor.shape.rank - 1, 0)]);
  std::vector<float> values(static_cast<std::size_t>(tensor.shape.elements()));
  for (float& value : values)
    value = tensor.scale * (is_norm ? 1 + 0.1f * rng.normal() : rng.normal() / std::sqrt(columns));
  return values;
}

SyntheticTensor& tensor_named(SyntheticTensors& tensors, std::string_view name) {
  const auto found = std::ranges::find(tensors, name, &SyntheticTensor::name);
  if (found == tensors.end()) throw std::invalid_argument("no such tensor: " + std::string(name));
  return *found;
}

void remove_tensor(SyntheticTensors& tensors, std::string_view name) {
  tensors.erase(tensors.begin() + (&tensor_named(tensors, name) - tensors.data()));
}

void write_model(const TemporaryFolder& folder, const Json& config, const SyntheticTensors& tensors) {
  std::vector<std::vector<std::byte>> data;
  for (const SyntheticTensor& tensor : tensors) data.push_back(stored(tensor));
  std::vector<SafetensorsTensor> file;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    file.push_back({tensors[i].name, tensors[i].dtype, tensors[i].shape, data[i]});
  folder.write("config.json", to_line(config));
  write_safetensors(folder.path("model.safetensors"), file);
}

SyntheticCheckpoint::SyntheticCheckpoint(const Json& config, const SyntheticTensors& tensors) {
  write_model(folder_, config, tensors);
  checkpoint_ = Checkpoint::open(folder_.path());
}

void make_block_fp8(Json& config, SyntheticTensors& tensors) {
  config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {kScaleBlock, kScaleBlock}}};
  SyntheticTensors scales;
  for (SyntheticTensor& tensor : tensors) {
    const auto ends = [&](const char* end) { return tensor.name.ends_with(end); };
    if (!ends("_proj.weight") && !ends(".wq.weight") && !ends("_with_mqa.weight")) continue;
    tensor.dtype = DType::kF8E4M3;
    Shape blocks = tensor.shape;
    for (const int axis : {blocks.rank - 2, blocks.rank - 1})
      blocks.dims[axis] = (blocks.dims[axis] + kScaleBlock - 1) / kScaleBlock;
    scales.push_back({tensor.name + "_scale_inv", blocks});
  }
  tensors.insert(tensors.end(), scales.begin(), scales.end());
}

void widen_block_fp8(Json& config, SyntheticTensors& tensors) {
  config.erase("quantization_config");
  SyntheticTensors widened;
  for (const SyntheticTensor& tensor : tensors) {
    if (tensor.name.ends_with("_scale_inv")) continue;
    widened.push_back(tensor);
    if (tensor.dtype != DType::kF8E4M3) continue;
    const int rank = tensor.shape.rank;
    const std::int64_t rows = tensor.shape[rank - 2], columns = tensor.shape[rank - 1];
    const std::int64_t block_rows = (rows + kScaleBlock - 1) / kScaleBlock;
    const std::int64_t block_columns = (columns + kScaleBlock - 1) / kScaleBlock;
    const std::vector<float> scales = synthetic_values(tensor_named(tensors, tensor.name + "_scale_inv"));
    std::vector<float> values = synthetic_values(tensor);
    for (std::int64_t i = 0; i < std::ssize(values); ++i) {
      const std::int64_t matrix = i / columns / rows, row = i / columns % rows, column = i % columns;
      const std::int64_t block = (matrix * block_rows + row / kScaleBlock) * block_columns + column / kScaleBlock;
      float& value = values[static_cast<std::size_t>(i)];
      value = f8_e4m3_to_f32(f32_to_f8_e4m3(value)) * scales[static_cast<std::size_t>(block)];
    }
    widened.back().dtype = DType::kF32;
    widened.back().values = std::move(values);
  }
  tensors = std::move(widened);
}

Json llama_config() {
  return Json::parse(R"({"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 48, "vocab_size": 40,
    "max_position_embeddings": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "intermediate_size": 80, "eos_token_id": 39})");
}

SyntheticTensors llama_tensors(const Json& config) {
  const std::int64_t hidden = config["hidden_size"], width = config["intermediate_size"], vocab = config["vocab_size"];
  const std::int64_t dim = config["head_dim"];
  const std::int64_t q = config["num_attention_heads"].get<std::int64_t>() * dim;
  const std::int64_t kv = config["num_key_value_heads"].get<std::int64_t>() * dim;
  SyntheticTensors tensors{{"model.embed_tokens.weight", {vocab, hidden}}, {"model.norm.weight", {hidden}}};
  if (!config.value("tie_word_embeddings", false)) tensors.push_back({"lm_head.weight", {vocab, hidden}});
  for (int i = 0; i < config["num_hidden_layers"].get<int>(); ++i) {
    const std::string layer = format("model.layers.{}.", i), attention = layer + "self_attn.";
    tensors.push_back({layer + "input_layernorm.weight", {hidden}});
    tensors.push_back({attention + "q_proj.weight", {q, hidden}});
    tensors.push_back({attention + "k_proj.weight", {kv, hidden}});
    tensors.push_back({attention + "v_proj.weight", {kv, hidden}});
    tensors.push_back({attention + "o_proj.weight", {hidden, q}});
    tensors.push_back({layer + "post_attention_layernorm.weight", {hidden}});
    add_gated_ffn(tensors, layer + "mlp.", {width, hidden}, {hidden, width});
  }
  return tensors;
}

Json step3_config() {
  return Json::parse(R"({"model_type": "step3_text", "num_hidden_layers": 3, "hidden_size": 48, "vocab_size": 40,
    "max_position_embedding": 128, "num_attention_heads": 4, "head_dim": 16, "share_q_dim": 24,
    "intermediate_size": 80, "moe_layers_enum": "1", "moe_num_experts": 6, "moe_top_k": 2,
    "moe_intermediate_size": 33, "share_expert_dim": 64, "norm_expert_weight": false})");
}

SyntheticTensors step3_tensors(const Json& config) {
  const std::int64_t hidden = config["hidden_size"], width = config["intermediate_size"], vocab = config["vocab_size"];
  const std::int64_t dim = config["head_dim"], rank = config["share_q_dim"], experts = config["moe_num_experts"];
  const std::int64_t expert_width = config["moe_intermediate_size"], shared_width = config["share_expert_dim"];
  const std::int64_t q = config["num_attention_heads"].get<std::int64_t>() * dim;
  SyntheticTensors tensors{{"model.embed_tokens.weight", {vocab, hidden}}, {"model.norm.weight", {hidden}}};
  if (!config.value("tie_word_embeddings", false)) tensors.push_back({"lm_head.weight", {vocab, hidden}});
  for (int i = 0; i < config["num_hidden_layers"].get<int>(); ++i) {
    const std::string layer = format("model.layers.{}.", i), attention = layer + "self_attn.";
    tensors.push_back({layer + "input_layernorm.weight", {hidden}});
    tensors.push_back({attention + "q_proj.weight", {rank, hidden}});
    tensors.push_back({attention + "k_proj.weight", {dim, hidden}});
    tensors.push_back({attention + "v_proj.weight", {dim, hidden}});
    tensors.push_back({attention + "inter_norm.weight", {rank}});
    tensors.push_back({attention + "wq.weight", {q, rank}});
    tensors.push_back({attention + "o_proj.weight", {hidden, q}});
    tensors.push_back({layer + "post_attention_layernorm.weight", {hidden}});
    if (i != 1) {
      add_gated_ffn(tensors, layer + "mlp.", {width, hidden}, {hidden, width});
      continue;
    }
    tensors.push_back({layer + "moe.gate.weight", {experts, hidden}});
    add_gated_ffn(tensors, layer + "moe.", {experts, expert_width, hidden}, {experts, hidden, expert_width});
    add_gated_ffn(tensors, layer + "share_expert.", {shared_width, hidden}, {hidden, shared_width});
  }
  return tensors;
}

Json qwen3_config() {
  return Json::parse(R"({"model_type": "qwen3", "num_hidden_layers": 3, "hidden_size": 40, "vocab_size": 39,
    "max_position_embeddings": 128, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 12,
    "intermediate_size": 80, "rope_theta": 1000000, "rope_scaling": null, "use_sliding_window": false,
    "tie_word_embeddings": true, "eos_token_id": 38})");
}

Json qwen3_moe_config() {
  Json config = qwen3_config();
  config.update(Json::parse(R"({"model_type": "qwen3_moe", "num_experts": 6, "num_experts_per_tok": 2,
    "moe_intermediate_size": 33, "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [0, 2],
    "tie_word_embeddings": false})"));
  return config;
}

SyntheticTensors qwen3_tensors(const Json& config) {
  SyntheticTensors tensors;
  const std::int64_t hidden = config["hidden_size"], dim = config["head_dim"];
  for (SyntheticTensor& tensor : llama_tensors(config)) {
    const bool routed = config.contains("num_experts") && tensor.name.starts_with("model.layers.1.mlp.");
    if (!routed) tensors.push_back(std::move(tensor));
  }
  for (int i = 0; i < config["num_hidden_layers"].get<int>(); ++i)
    for (const char* norm : {"q_norm", "k_norm"})
      tensors.push_back({format("model.layers.{}.self_attn.{}.weight", i, norm), {dim}});
  if (!config.contains("num_experts")) return tensors;
  const std::int64_t experts = config["num_experts"], width = config["moe_intermediate_size"];
  tensors.push_back({"model.layers.1.mlp.gate.weight", {experts, hidden}});
  for (std::int64_t e = 0; e < experts; ++e)
    add_gated_ffn(tensors, format("model.layers.1.mlp.experts.{}.", e), {width, hidden}, {hidden, width});
  return tensors;
}

Json deepseek_v3_config() {
  return Json::parse(R"({"model_type": "deepseek_v3", "num_hidden_layers": 3, "hidden_size": 40, "vocab_size": 39,
    "max_position_embeddings": 256, "num_attention_heads": 5, "q_lora_rank": 24, "kv_lora_rank": 20,
    "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 7, "intermediate_size": 80,
    "first_k_dense_replace": 1, "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 33,
    "n_shared_experts": 1, "n_group": 4, "topk_group": 2, "topk_method": "noaux_tc", "scoring_func": "sigmoid",
    "norm_topk_prob": true, "routed_scaling_factor": 2.5, "rope_theta": 10000, "rope_scaling": {"type": "yarn",
    "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 64}, "num_nextn_predict_layers": 1, "eos_token_id": 38})");
}

SyntheticTensors deepseek_v3_tensors(const Json& config) {
  const std::int64_t hidden = config["hidden_size"], vocab = config["vocab_size"];
  const std::int64_t heads = config["num_attention_heads"], latent = config["kv_lora_rank"];
  const std::int64_t plain = config["qk_nope_head_dim"], rope = config["qk_rope_head_dim"];
  const std::int64_t value = config["v_head_dim"], width = config["intermediate_size"];
  const std::int64_t rank = config["q_lora_rank"].is_null() ? 0 : config["q_lora_rank"].get<std::int64_t>();
  const std::int64_t experts = config.value("n_routed_experts", 0);
  SyntheticTensors tensors{{"model.embed_tokens.weight", {vocab, hidden}}, {"model.norm.weight", {hidden}}};
  if (!config.value("tie_word_embeddings", false)) tensors.push_back({"lm_head.weight", {vocab, hidden}});
  for (int i = 0; i < config["num_hidden_layers"].get<int>(); ++i) {
    const std::string layer = format("model.layers.{}.", i), a = layer + "self_attn.", m = layer + "mlp.";
    tensors.push_back({layer + "input_layernorm.weight", {hidden}});
    if (rank > 0) {
      tensors.push_back({a + "q_a_proj.weight", {rank, hidden}});
      tensors.push_back({a + "q_a_layernorm.weight", {rank}});
    }
    tensors.push_back(
        {a + (rank > 0 ? "q_b_proj.weight" : "q_proj.weight"), {heads * (plain + rope), rank > 0 ? rank : hidden}});
    tensors.push_back({a + "kv_a_proj_with_mqa.weight", {latent + rope, hidden}});
    tensors.push_back({a + "kv_a_layernorm.weight", {latent}});
    tensors.push_back({a + "kv_b_proj.weight", {heads * (plain + value), latent}});
    tensors.push_back({a + "o_proj.weight", {hidden, heads * value}});
    tensors.push_back({layer + "post_attention_layernorm.weight", {hidden}});
    if (experts == 0 || i < config["first_k_dense_replace"].get<int>()) {
      add_gated_ffn(tensors, m, {width, hidden}, {hidden, width});
      continue;
    }
    const std::int64_t w = config["moe_intermediate_size"], shared = w * config.value("n_shared_experts", 0);
    tensors.push_back({m + "gate.weight", {experts, hidden}});
    if (config.value("topk_method", "noaux_tc") == "noaux_tc")
      tensors.push_back({m + "gate.e_score_correction_bias", {experts}});
    for (std::int64_t e = 0; e < experts; ++e)
      add_gated_ffn(tensors, m + format("experts.{}.", e), {w, hidden}, {hidden, w});
    if (shared > 0) add_gated_ffn(tensors, m + "shared_experts.", {shared, hidden}, {hidden, shared});
  }
  return tensors;
}

SyntheticTensors tensors_for(const Json& config) {
  const SyntheticCheckpoint nothing(config, {{"unused", {1}}});
  SyntheticTensors tensors;
  for (const ListedTensor& tensor : list_tensors(*nothing)) tensors.push_back({tensor.name, tensor.shape});
  return tensors;
}

namespace {

std::uint32_t gguf_number(DType dtype) {
  constexpr std::uint32_t kNumbersMax = 64;
  for (std::uint32_t number = 0; number < kNumbersMax; ++number)
    if (const GgufTensorType* type = find_gguf_tensor_type(number); type && type->dtype == dtype) return number;
  throw std::invalid_argument("a type that GGUF files do not have");
}

}  // namespace

std::string write_gguf(const TemporaryFolder& folder, const Json& metadata, const std::vector<GgufTensor>& tensors) {
  constexpr std::uint32_t kU32 = 4, kF32 = 6, kBool = 7, kString = 8;
  constexpr std::size_t kAlignment = 32;
  Bytes file, data;
  file.text("GGUF").u32(3).u64(tensors.size()).u64(metadata.size());
  for (const auto& [key, value] : metadata.items()) {
    file.string(key);
    if (value.is_string())
      file.u32(kString).string(value.get<std::string>());
    else if (value.is_boolean())
      file.u32(kBool).number(static_cast<std::uint8_t>(value.get<bool>()));
    else if (value.is_number_integer())
      file.u32(kU32).u32(value.get<std::uint32_t>());
    else
      file.u32(kF32).number(value.get<float>());
  }
  for (const GgufTensor& tensor : tensors) {
    if (!tensor.values.empty() && !tensor.bytes.empty())
      throw std::invalid_argument("values and bytes: " + tensor.name);
    file.string(tensor.name).u32(static_cast<std::uint32_t>(tensor.shape.rank));
    for (int axis = tensor.shape.rank - 1; axis >= 0; --axis)  // the file counts from the fastest
      file.u64(static_cast<std::uint64_t>(tensor.shape[axis]));
    file.u32(gguf_number(tensor.dtype)).u64(data.data().size());
    for (const float value : tensor.values) data.number(value);
    data.data().insert(data.data().end(), tensor.bytes.begin(), tensor.bytes.end());
    data.align(kAlignment);
  }
  file.align(kAlignment);
  file.data().insert(file.data().end(), data.data().begin(), data.data().end());
  return folder.write("model.gguf", file.span());
}

}  // namespace tandem
