// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "synthetic/published_config.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

constexpr std::string_view kStep3Text = R"({"architectures": ["Step3TextForCausalLM"], "model_type": "step3_text",
  "bos_token_id": 0, "eos_token_id": 128805, "hidden_size": 7168, "intermediate_size": 18432,
  "num_attention_heads": 64, "num_attention_groups": 1, "num_hidden_layers": 61, "max_seq_len": 65536,
  "vocab_size": 128815, "rms_norm_eps": 1e-05, "moe_intermediate_size": 5120, "moe_num_experts": 48, "moe_top_k": 3,
  "rope_theta": 500000, "rope_scaling": null, "max_position_embedding": 65536, "share_expert_dim": 5120,
  "share_q_dim": 2048, "head_dim": 256, "norm_expert_weight": false,
  "moe_layers_enum": "4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59",
  "tie_word_embeddings": false, "torch_dtype": "bfloat16"})";

constexpr std::string_view kStep3Vl = R"({"architectures": ["Step3VLForConditionalGeneration"],
  "model_type": "step3_vl", "im_end_token": "<im_end>", "im_patch_token": "<im_patch>",
  "im_start_token": "<im_start>", "image_token_len": 169, "patch_token_len": 81, "image_token_id": 128001,
  "understand_projector_stride": 2, "projector_bias": false, "bos_token_id": 0, "eos_token_id": 128805,
  "vision_config": {"hidden_size": 1792, "output_hidden_size": 4096, "num_hidden_layers": 63,
    "num_attention_heads": 16, "intermediate_size": 15360, "image_size": 728, "patch_size": 14, "num_channels": 3,
    "hidden_act": "quick_gelu"}})";

constexpr std::string_view kDeepseekV3 = R"({"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
  "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1,
  "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168, "initializer_range": 0.02,
  "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840, "moe_intermediate_size": 2048,
  "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": true,
  "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
  "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
  "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
    "weight_block_size": [128, 128]},
  "rms_norm_eps": 1e-06, "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0,
    "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096, "type": "yarn"},
  "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "tie_word_embeddings": false,
  "topk_group": 4, "topk_method": "noaux_tc", "torch_dtype": "bfloat16", "v_head_dim": 128, "vocab_size": 129280})";

constexpr std::string_view kQwen3Moe = R"({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
  "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 151643, "decoder_sparse_step": 1,
  "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
  "intermediate_size": 6144, "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [],
  "moe_intermediate_size": 768, "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128,
  "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4, "rms_norm_eps": 1e-06,
  "rope_scaling": null, "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false,
  "torch_dtype": "bfloat16", "use_sliding_window": false, "vocab_size": 151936})";

constexpr std::string_view kQwen3 = R"({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
  "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128,
  "hidden_act": "silu", "hidden_size": 5120, "initializer_range": 0.02, "intermediate_size": 25600,
  "max_position_embeddings": 40960, "max_window_layers": 64, "num_attention_heads": 64, "num_hidden_layers": 64,
  "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000,
  "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_sliding_window": false,
  "vocab_size": 151936})";

constexpr std::string_view kLlama = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
  "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
  "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
  "max_position_embeddings": 131072, "mlp_bias": false, "num_attention_heads": 32, "num_hidden_layers": 32,
  "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0,
    "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3"},
  "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 128256})";

constexpr std::size_t kConfigBytesMax = 1 << 20;

OrderedJson read_config_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::kNotFound, format("{} cannot be read", path));
  std::string text(std::istreambuf_iterator<char>(file), {});
  OrderedJson config = parse_ordered_json(text, path, {.bytes_max = kConfigBytesMax});
  if (!config.is_object()) throw Error(ErrorCode::kInvalidData, format("{}: not a JSON object", path));
  return config;
}

}  // namespace

OrderedJson block_fp8_config() {
  return {{"activation_scheme", "dynamic"},
          {"fmt", "e4m3"},
          {"quant_method", "fp8"},
          {"weight_block_size", OrderedJson::array({128, 128})}};
}

const std::vector<PublishedConfig>& published_configs() {
  static const std::vector<PublishedConfig> configs{
      {"step3", "the language model of Step-3", kStep3Text},
      {"step3_fp8", "the same with weights in FP8", kStep3Text},
      {"step3_vl", "Step-3 with its eyes", kStep3Vl},
      {"deepseek_v3", "DeepSeek-V3", kDeepseekV3},
      {"qwen3_moe", "Qwen3-30B-A3B", kQwen3Moe},
      {"qwen3", "Qwen3-32B", kQwen3},
      {"llama", "Llama-3.1-8B-Instruct", kLlama},
  };
  return configs;
}

OrderedJson find_config(const std::string& name_or_path) {
  const auto found = std::ranges::find(published_configs(), name_or_path, &PublishedConfig::name);
  if (found != published_configs().end()) {
    OrderedJson config = parse_ordered_json(found->json, name_or_path);
    if (found->json == kStep3Vl) config["text_config"] = parse_ordered_json(kStep3Text, name_or_path);
    if (found->name.ends_with("_fp8")) config["quantization_config"] = block_fp8_config();
    return config;
  }
  std::error_code ignored;
  if (std::filesystem::is_directory(name_or_path, ignored)) return read_config_file(name_or_path + "/config.json");
  if (name_or_path.ends_with(".json")) return read_config_file(name_or_path);
  std::vector<std::string_view> names;
  for (const PublishedConfig& config : published_configs()) names.push_back(config.name);
  throw Error(ErrorCode::kInvalidArgument,
              format("no model is called {}: take one of {}, or a config.json", name_or_path, join(names, ", ")));
}

}  // namespace tandem
