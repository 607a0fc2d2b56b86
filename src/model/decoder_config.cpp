// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "model/decoder_config.h"

#include <charconv>
#include <cmath>
#include <optional>
#include <ranges>
#include <string_view>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

ModelConfig read_decoder_config(const ConfigReader& config) {
  if (config.text_or("hidden_act", "silu") != "silu") config.unsupported("hidden_act", "silu");
  for (const char* key : {"attention_bias", "mlp_bias"})
    if (config.boolean_or(key, false)) config.unsupported(key, "false");
  ModelConfig c;
  c.layers = static_cast<std::int32_t>(config.integer("num_hidden_layers", 1, kLayersMax));
  c.hidden = static_cast<std::int32_t>(config.integer("hidden_size", 1, kWidthMax));
  c.vocab = static_cast<std::int32_t>(config.integer("vocab_size", 1, kVocabMax));
  c.context_tokens_max = config.integer("max_position_embeddings", 1, kContextMax);
  c.norm_eps = static_cast<float>(config.number_or("rms_norm_eps", 1e-6, 0, 1));
  c.heads = static_cast<std::int32_t>(config.integer("num_attention_heads", 1, kHeadsMax));
  c.kv_heads = static_cast<std::int32_t>(config.integer_or("num_key_value_heads", c.heads, 1, kHeadsMax));
  if (c.heads % c.kv_heads != 0) config.invalid("num_key_value_heads", format("a divisor of {} heads", c.heads));
  if (!config.has("head_dim") && c.hidden % c.heads != 0)
    config.invalid("num_attention_heads", format("a divisor of hidden_size {}", c.hidden));
  c.head_dim = static_cast<std::int32_t>(config.integer_or("head_dim", c.hidden / c.heads, 2, head_dim_max(c.heads)));
  if (c.head_dim % 2 != 0) config.invalid("head_dim", "an even number");
  c.rope = read_rope_config(config, c.head_dim);
  c.ffn_width = static_cast<std::int32_t>(config.integer("intermediate_size", 1, kWidthMax));
  c.routed.assign(c.layers, false);
  c.block_fp8 = read_block_fp8(config);
  c.tied_head = config.boolean_or("tie_word_embeddings", false);
  c.eos_ids = config.ids("eos_token_id", c.vocab);
  return c;
}

std::int32_t read_gguf_vocab(const Checkpoint& checkpoint, const ConfigReader& config) {
  const TensorInfo* embedding = checkpoint.find("token_embd.weight");
  if (!embedding) throw Error(ErrorCode::kInvalidData, config.what() + ": tensor token_embd.weight is missing");
  if (embedding->shape[0] < 1 || embedding->shape[0] > kVocabMax)
    throw Error(ErrorCode::kInvalidData, format("{}: token_embd.weight has {} rows, limit is {}", config.what(),
                                                embedding->shape[0], kVocabMax));
  return static_cast<std::int32_t>(embedding->shape[0]);
}

namespace {

std::vector<float> read_rope_divisors(const Checkpoint& checkpoint, const ConfigReader& config, std::int32_t dim) {
  const TensorInfo* factors = checkpoint.find("rope_freqs.weight");
  if (!factors) return {};
  if (factors->dtype != DType::kF32 || factors->shape != Shape{dim / 2})
    throw Error(ErrorCode::kInvalidData, format("{}: rope_freqs.weight is {} {}, expected f32 [{}]", config.what(),
                                                factors->type_name, to_string(factors->shape), dim / 2));
  std::vector<float> divisors(static_cast<std::size_t>(dim / 2));
  dequantise(DType::kF32, checkpoint.data(*factors).data(), divisors.size(), divisors.data());
  for (const float divisor : divisors)
    if (!(divisor > 0 && std::isfinite(divisor)))
      throw Error(ErrorCode::kInvalidData,
                  format("{}: rope_freqs.weight holds {}, expected positive numbers", config.what(), divisor));
  return divisors;
}

}  // namespace

ModelConfig read_decoder_gguf_config(const Checkpoint& checkpoint, const ConfigReader& config,
                                     const std::string& architecture) {
  const std::string p = architecture + ".";
  if (config.text_or(p + "rope.scaling.type", "none") != "none") config.unsupported(p + "rope.scaling.type", "none");
  ModelConfig c;
  c.layers = static_cast<std::int32_t>(config.integer(p + "block_count", 1, kLayersMax));
  c.hidden = static_cast<std::int32_t>(config.integer(p + "embedding_length", 1, kWidthMax));
  c.context_tokens_max = config.integer(p + "context_length", 1, kContextMax);
  c.norm_eps = static_cast<float>(config.number(p + "attention.layer_norm_rms_epsilon", 0, 1));
  c.heads = static_cast<std::int32_t>(config.integer(p + "attention.head_count", 1, kHeadsMax));
  c.kv_heads = static_cast<std::int32_t>(config.integer_or(p + "attention.head_count_kv", c.heads, 1, kHeadsMax));
  if (c.heads % c.kv_heads != 0)
    config.invalid(p + "attention.head_count_kv", format("a divisor of {} heads", c.heads));
  if (!config.has(p + "attention.key_length") && c.hidden % c.heads != 0)
    config.invalid(p + "attention.head_count", format("a divisor of {}embedding_length {}", p, c.hidden));
  c.head_dim = static_cast<std::int32_t>(
      config.integer_or(p + "attention.key_length", c.hidden / c.heads, 2, head_dim_max(c.heads)));
  if (config.integer_or(p + "attention.value_length", c.head_dim, 2, kWidthMax) != c.head_dim)
    config.unsupported(p + "attention.value_length", format("{}", c.head_dim));
  if (c.head_dim % 2 != 0) config.invalid(p + "attention.key_length", "an even number");
  c.rope.theta = config.number_or(p + "rope.freq_base", 10000, 1, 1e12);
  c.rope.dim = static_cast<std::int32_t>(config.integer_or(p + "rope.dimension_count", c.head_dim, 2, c.head_dim));
  if (c.rope.dim != c.head_dim) config.unsupported(p + "rope.dimension_count", format("{}", c.head_dim));
  c.ffn_width = static_cast<std::int32_t>(config.integer(p + "feed_forward_length", 1, kWidthMax));
  c.routed.assign(c.layers, false);
  c.vocab = read_gguf_vocab(checkpoint, config);
  c.tied_head = !checkpoint.find("output.weight");
  c.eos_ids = config.ids("tokenizer.ggml.eos_token_id", c.vocab);
  c.rope.divisors = read_rope_divisors(checkpoint, config, c.rope.dim);
  return c;
}

double yarn_magnitude(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

void read_yarn(const ConfigReader& scaling, RopeConfig& rope) {
  rope.yarn = true;
  rope.factor = scaling.number("factor", 1, 1e6);
  rope.beta_fast = scaling.number_or("beta_fast", 32, 1e-3, 1e6);
  rope.beta_slow = scaling.number_or("beta_slow", 1, 1e-3, 1e6);
  rope.original_context = static_cast<double>(scaling.integer("original_max_position_embeddings", 1, kContextMax));
  if (rope.beta_fast < rope.beta_slow) scaling.invalid("beta_fast", "at least beta_slow");
  if (!scaling.boolean_or("truncate", true)) scaling.unsupported("truncate", "true");
  const double mscale = scaling.number_or("mscale", 0, 0, 100), all = scaling.number_or("mscale_all_dim", 0, 0, 100);
  const double magnitude = mscale > 0 && all > 0
                               ? yarn_magnitude(rope.factor, mscale) / yarn_magnitude(rope.factor, all)
                               : yarn_magnitude(rope.factor, 1);
  rope.magnitude = static_cast<float>(scaling.number_or("attention_factor", magnitude, 1e-3, 1e3));
}

RopeConfig read_rope_config(const ConfigReader& config, std::int32_t dim) {
  RopeConfig rope;
  rope.dim = dim;
  rope.theta = config.number_or("rope_theta", 10000, 1, 1e12);
  const std::string key = config.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!config.has(key)) return rope;
  if (!config.raw(key).is_object()) config.invalid(key, "an object");
  const ConfigReader scaling(config.raw(key), config.what() + ": " + key);
  rope.theta = scaling.number_or("rope_theta", rope.theta, 1, 1e12);
  const std::string type = scaling.text_or("rope_type", scaling.text_or("type", "default"));
  if (type == "default") return rope;
  if (type == "yarn") {
    if (rope.theta <= 1) config.invalid("rope_theta", "more than 1");  // its logarithm divides
    read_yarn(scaling, rope);
    return rope;
  }
  if (type != "llama3") scaling.unsupported(scaling.has("rope_type") ? "rope_type" : "type", "llama3, yarn, default");
  rope.llama3 = true;
  rope.factor = scaling.number("factor", 1, 1e6);
  rope.low_freq_factor = scaling.number("low_freq_factor", 1e-3, 1e6);
  rope.high_freq_factor = scaling.number("high_freq_factor", 1e-3, 1e6);
  rope.original_context = static_cast<double>(scaling.integer("original_max_position_embeddings", 1, kContextMax));
  if (rope.high_freq_factor <= rope.low_freq_factor) scaling.invalid("high_freq_factor", "more than low_freq_factor");
  return rope;
}

namespace {

// A decimal number, spaces around it allowed.
std::optional<std::int64_t> to_number(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(' '), end = text.find_last_not_of(' ') + 1;
  if (begin == std::string_view::npos) return {};
  std::int64_t number = 0;
  const auto [next, failure] = std::from_chars(text.data() + begin, text.data() + end, number);
  if (failure != std::errc() || next != text.data() + end) return {};
  return number;
}

}  // namespace

std::vector<bool> read_moe_layers_enum(const ConfigReader& config, std::int32_t layers) {
  const std::string key = "moe_layers_enum", expected = format("layer numbers in 0 … {}", layers - 1);
  std::vector<bool> routed(layers, !config.has(key));
  if (!config.has(key)) {
    routed[0] = false;
    return routed;
  }
  std::vector<std::int64_t> numbers;
  if (config.raw(key).is_string()) {
    for (const auto part : std::views::split(config.raw(key).get_ref<const std::string&>(), ',')) {
      const std::optional<std::int64_t> number = to_number({part.begin(), part.end()});
      if (!number) config.invalid(key, expected);
      numbers.push_back(*number);
    }
  } else if (config.raw(key).is_array()) {
    for (const Json& number : config.raw(key)) {
      if (!number.is_number_integer()) config.invalid(key, expected);
      numbers.push_back(number.get<std::int64_t>());
    }
  } else {
    config.invalid(key, expected);
  }
  for (const std::int64_t number : numbers) {
    if (number < 0 || number >= layers) config.invalid(key, expected);
    routed[number] = true;
  }
  return routed;
}

}  // namespace tandem
