// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/verify/gguf_copy.h"

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

std::string write_gguf_copy(const TemporaryFolder& folder, const Checkpoint& source) {
  const Json& config = source.config();
  Copy copy(source);
  copy.add("model.embed_tokens.weight", "token_embd.weight");
  copy.add("model.norm.weight", "output_norm.weight");
  if (source.find("lm_head.weight")) copy.add("lm_head.weight", "output.weight");
  for (int i = 0; i < config["num_hidden_layers"].get<int>(); ++i) add_layer(copy, config, i);
  return write_gguf(folder, metadata_of(config), copy.tensors());
}

}  // namespace tandem
