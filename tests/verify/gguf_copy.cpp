// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/verify/gguf_copy.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "base/format.h"
#include "tests/model/synthetic_checkpoint.h"

namespace tandem {

namespace {

std::vector<float> values_of(const Checkpoint& source, const std::string& name) {
  const TensorInfo* info = source.find(name);
  if (!info) throw std::invalid_argument("no such tensor: " + name);
  std::vector<float> values(static_cast<std::size_t>(info->shape.elements()));
  dequantise(*info->dtype, source.data(*info).data(), values.size(), values.data());
  return values;
}

// Blocks of 32: a factor in f16, which here is a power of two that the values fit, and integers.
void round_to_q8(GgufTensor& tensor) {
  for (std::size_t i = 0; i < tensor.values.size(); i += 32) {
    float largest = 0;
    for (std::size_t j = 0; j < 32; ++j) largest = std::max(largest, std::abs(tensor.values[i + j]));
    const int exponent = std::clamp(std::ilogb(std::max(largest, 1e-3f)) - 6, -14, 15);
    const auto half = static_cast<std::uint16_t>((exponent + 15) << 10);
    tensor.bytes.push_back(static_cast<std::byte>(half & 0xff));
    tensor.bytes.push_back(static_cast<std::byte>(half >> 8));
    for (std::size_t j = 0; j < 32; ++j) {
      const float code = std::nearbyint(std::ldexp(tensor.values[i + j], -exponent));
      tensor.bytes.push_back(static_cast<std::byte>(static_cast<std::int8_t>(std::clamp(code, -127.0f, 127.0f))));
    }
  }
  tensor.dtype = DType::kQ8_0;
  tensor.values.clear();
}

class Copy {
 public:
  explicit Copy(const Checkpoint& source) : source_(source) {}

  void add(const std::string& from, const std::string& to) {
    tensors_.push_back({to, source_.find(from)->shape, values_of(source_, from)});
  }
  // Tensors of the same shape on one leading axis; "{}" in the name is their number.
  void stack(const std::string& prefix, const std::string& suffix, std::int64_t count, const std::string& to) {
    GgufTensor stacked{to, {}, {}};
    for (std::int64_t i = 0; i < count; ++i) {
      const std::string name = format("{}{}{}", prefix, i, suffix);
      const Shape& shape = source_.find(name)->shape;
      stacked.shape = {count, shape[0], shape[1]};
      const std::vector<float> values = values_of(source_, name);
      stacked.values.insert(stacked.values.end(), values.begin(), values.end());
    }
    tensors_.push_back(std::move(stacked));
  }
  // Rows of a matrix that belong to heads, head after head: of each the range [begin, begin + count) of its rows, on a
  // leading axis of heads; transposed: [count, columns] becomes [columns, count].
  void split_heads(const std::string& from, std::int64_t heads, std::int64_t begin, std::int64_t count, bool transposed,
                   const std::string& to) {
    const Shape shape = source_.find(from)->shape;
    const std::int64_t rows = shape[0] / heads, columns = shape[1];
    const std::vector<float> values = values_of(source_, from);
    GgufTensor split{to, transposed ? Shape{heads, columns, count} : Shape{heads, count, columns}, {}};
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t i = 0; i < count * columns; ++i) {
        const std::int64_t row = transposed ? i % count : i / columns, column = transposed ? i / count : i % columns;
        split.values.push_back(values[static_cast<std::size_t>((h * rows + begin + row) * columns + column)]);
      }
    tensors_.push_back(std::move(split));
  }
  bool has(const std::string& name) const { return source_.find(name) != nullptr; }
  void round_matrices() {
    for (GgufTensor& tensor : tensors_)
      if (tensor.shape.rank > 1 && tensor.name.find("ffn_gate_inp") == std::string::npos) round_to_q8(tensor);
  }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }

 private:
  const Checkpoint& source_;
  std::vector<GgufTensor> tensors_;
};

void add_layer(Copy& copy, const Json& config, int layer) {
  const std::string from = format("model.layers.{}.", layer), to = format("blk.{}.", layer);
  const std::pair<const char*, const char*> names[] = {
      {"input_layernorm", "attn_norm"},    {"self_attn.q_proj", "attn_q"},          {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},      {"self_attn.q_norm", "attn_q_norm"},     {"self_attn.k_norm", "attn_k_norm"},
      {"self_attn.o_proj", "attn_output"}, {"post_attention_layernorm", "ffn_norm"}};
  for (const auto& [theirs, ours] : names) copy.add(from + theirs + ".weight", to + ours + ".weight");
  const bool routed = config.contains("num_experts");
  if (routed) copy.add(from + "mlp.gate.weight", to + "ffn_gate_inp.weight");
  for (const std::string part : {"gate", "up", "down"}) {
    if (routed)
      copy.stack(from + "mlp.experts.", format(".{}_proj.weight", part), config["num_experts"],
                 to + format("ffn_{}_exps.weight", part));
    else
      copy.add(from + format("mlp.{}_proj.weight", part), to + format("ffn_{}.weight", part));
  }
}

// ---- deepseek2

void add_deepseek_layer(Copy& copy, const Json& config, int layer, bool heads_apart) {
  const std::string from = format("model.layers.{}.", layer), to = format("blk.{}.", layer), a = from + "self_attn.";
  const std::pair<std::string, const char*> names[] = {{from + "input_layernorm", "attn_norm"},
                                                       {a + "q_a_proj", "attn_q_a"},
                                                       {a + "q_a_layernorm", "attn_q_a_norm"},
                                                       {a + "q_b_proj", "attn_q_b"},
                                                       {a + "kv_a_proj_with_mqa", "attn_kv_a_mqa"},
                                                       {a + "kv_a_layernorm", "attn_kv_a_norm"},
                                                       {a + "o_proj", "attn_output"},
                                                       {from + "post_attention_layernorm", "ffn_norm"}};
  for (const auto& [theirs, ours] : names) copy.add(theirs + ".weight", to + ours + ".weight");
  const std::int64_t heads = config["num_attention_heads"], plain = config["qk_nope_head_dim"];
  if (heads_apart) {
    copy.split_heads(a + "kv_b_proj.weight", heads, 0, plain, /*transposed=*/true, to + "attn_k_b.weight");
    copy.split_heads(a + "kv_b_proj.weight", heads, plain, config["v_head_dim"], /*transposed=*/false,
                     to + "attn_v_b.weight");
  } else {
    copy.add(a + "kv_b_proj.weight", to + "attn_kv_b.weight");
  }
  const bool routed = copy.has(from + "mlp.gate.weight");
  for (const std::string part : {"gate", "up", "down"}) {
    const std::string file = format("{}_proj.weight", part);
    if (!routed) {
      copy.add(from + "mlp." + file, to + format("ffn_{}.weight", part));
      continue;
    }
    copy.stack(from + "mlp.experts.", "." + file, config["n_routed_experts"], to + format("ffn_{}_exps.weight", part));
    copy.add(from + "mlp.shared_experts." + file, to + format("ffn_{}_shexp.weight", part));
  }
  if (!routed) return;
  copy.add(from + "mlp.gate.weight", to + "ffn_gate_inp.weight");
  copy.add(from + "mlp.gate.e_score_correction_bias", to + "exp_probs_b.bias");
}

Json deepseek_metadata_of(const Json& config, bool heads_apart) {
  const std::int64_t rope = config["qk_rope_head_dim"], latent = config["kv_lora_rank"], value = config["v_head_dim"];
  const std::int64_t key = config["qk_nope_head_dim"].get<std::int64_t>() + rope;
  Json metadata{{"general.architecture", "deepseek2"}};
  const auto put = [&](const char* name, const Json& item) { metadata[std::string("deepseek2.") + name] = item; };
  put("block_count", config["num_hidden_layers"]);
  put("context_length", config["max_position_embeddings"]);
  put("embedding_length", config["hidden_size"]);
  put("feed_forward_length", config["intermediate_size"]);
  put("attention.head_count", config["num_attention_heads"]);
  put("attention.head_count_kv", heads_apart ? Json(1) : config["num_attention_heads"]);
  put("attention.layer_norm_rms_epsilon", config["rms_norm_eps"]);
  put("attention.q_lora_rank", config["q_lora_rank"]);
  put("attention.kv_lora_rank", latent);
  put("attention.key_length", heads_apart ? latent + rope : key);
  put("attention.value_length", heads_apart ? latent : value);
  if (heads_apart) {
    put("attention.key_length_mla", key);
    put("attention.value_length_mla", value);
  }
  put("rope.dimension_count", rope);
  put("rope.freq_base", config["rope_theta"].get<double>());
  const Json& scaling = config["rope_scaling"];
  put("rope.scaling.type", "yarn");
  put("rope.scaling.factor", scaling["factor"].get<double>());
  put("rope.scaling.original_context_length", scaling["original_max_position_embeddings"]);
  put("rope.scaling.yarn_log_multiplier", 0.1 * scaling["mscale_all_dim"].get<double>());
  put("leading_dense_block_count", config["first_k_dense_replace"]);
  put("expert_count", config["n_routed_experts"]);
  put("expert_used_count", config["num_experts_per_tok"]);
  put("expert_shared_count", config["n_shared_experts"]);
  put("expert_feed_forward_length", config["moe_intermediate_size"]);
  put("expert_group_count", config["n_group"]);
  put("expert_group_used_count", config["topk_group"]);
  put("expert_gating_func", 2);
  put("expert_weights_norm", config["norm_topk_prob"]);
  put("expert_weights_scale", config["routed_scaling_factor"]);
  return metadata;
}

// ---- qwen3, qwen3moe

Json metadata_of(const Json& config) {
  const bool routed = config.contains("num_experts");
  const std::string architecture = routed ? "qwen3moe" : "qwen3";
  Json metadata{{"general.architecture", architecture}};
  const auto set = [&](const char* key, const char* from) { metadata[architecture + "." + key] = config[from]; };
  set("block_count", "num_hidden_layers");
  set("context_length", "max_position_embeddings");
  set("embedding_length", "hidden_size");
  set("feed_forward_length", "intermediate_size");
  set("attention.head_count", "num_attention_heads");
  set("attention.head_count_kv", "num_key_value_heads");
  set("attention.key_length", "head_dim");
  set("attention.value_length", "head_dim");
  set("attention.layer_norm_rms_epsilon", "rms_norm_eps");
  metadata[architecture + ".rope.freq_base"] = config["rope_theta"].get<double>();
  if (!routed) return metadata;
  set("expert_count", "num_experts");
  set("expert_used_count", "num_experts_per_tok");
  set("expert_feed_forward_length", "moe_intermediate_size");
  return metadata;
}

}  // namespace

std::string write_gguf_copy(const TemporaryFolder& folder, const Checkpoint& source, GgufForm form,
                            GgufWeights weights) {
  const Json& config = source.config();
  Copy copy(source);
  copy.add("model.embed_tokens.weight", "token_embd.weight");
  copy.add("model.norm.weight", "output_norm.weight");
  if (source.find("lm_head.weight")) copy.add("lm_head.weight", "output.weight");
  const bool deepseek = config["model_type"] == "deepseek_v3", heads_apart = form == GgufForm::kNew;
  for (int i = 0; i < config["num_hidden_layers"].get<int>(); ++i) {
    if (deepseek)
      add_deepseek_layer(copy, config, i, heads_apart);
    else
      add_layer(copy, config, i);
  }
  if (weights == GgufWeights::kQ8) copy.round_matrices();
  return write_gguf(folder, deepseek ? deepseek_metadata_of(config, heads_apart) : metadata_of(config), copy.tensors());
}

}  // namespace tandem
