// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/format.h"
#include "model/config_reader.h"
#include "ops/weight.h"

namespace tandem {

namespace {

// What the yarn rule makes of the frequency of pair m.
double yarn_slowdown(const RopeConfig& rope, double m) {
  // The pair that makes so many turns in the original context.
  const auto pair_of = [&](double turns) {
    return rope.dim * std::log(rope.original_context / (turns * 2 * std::numbers::pi)) / (2 * std::log(rope.theta));
  };
  const double low = std::max(std::floor(pair_of(rope.beta_fast)), 0.0);
  double high = std::min(std::ceil(pair_of(rope.beta_slow)), rope.dim - 1.0);
  if (high == low) high += 0.001;
  const double slowed = std::clamp((m - low) / (high - low), 0.0, 1.0);
  return slowed / rope.factor + (1 - slowed);
}

}  // namespace

KvSpec ModelConfig::kv_spec(DType dtype, std::int64_t blocks) const {
  if (latent > 0) return {layers, kv_heads, latent + rope.dim, latent, dtype, blocks, true};
  const std::int32_t windowed = window_kv_spec(dtype, 0).layers;
  return {layers - windowed, kv_heads, head_dim, head_dim, dtype, blocks};
}

KvSpec ModelConfig::window_kv_spec(DType dtype, std::int64_t blocks) const {
  if (window.tokens == 0) return {};
  const auto windowed = static_cast<std::int32_t>(std::ranges::count(window.layers, true));
  return {windowed, window.kv_heads, head_dim, head_dim, dtype, blocks};
}

std::int32_t ModelConfig::kv_layer(std::int32_t layer) const {
  if (window.tokens == 0) return layer;
  const auto end = window.layers.begin() + layer;
  return static_cast<std::int32_t>(std::count(window.layers.begin(), end, window.layers[layer]));
}

std::vector<float> rope_inv_freq(const RopeConfig& rope) {
  std::vector<float> frequencies(static_cast<std::size_t>(rope.dim / 2));
  const double low_wavelength = rope.original_context / rope.low_freq_factor;
  const double high_wavelength = rope.original_context / rope.high_freq_factor;
  for (std::size_t m = 0; m < frequencies.size(); ++m) {
    double frequency = std::pow(rope.theta, -2.0 * static_cast<double>(m) / rope.dim);
    if (rope.llama3) {
      const double wavelength = 2 * std::numbers::pi / frequency;
      if (wavelength > low_wavelength) {
        frequency /= rope.factor;
      } else if (wavelength > high_wavelength) {
        const double smooth = (rope.original_context / wavelength - rope.low_freq_factor) /
                              (rope.high_freq_factor - rope.low_freq_factor);
        frequency = (1 - smooth) * frequency / rope.factor + smooth * frequency;
      }
    }
    if (rope.yarn) frequency *= yarn_slowdown(rope, static_cast<double>(m));
    if (!rope.divisors.empty()) frequency /= rope.divisors[m];
    frequencies[m] = static_cast<float>(frequency);
  }
  return frequencies;
}

std::string_view name(Activations activations) {
  switch (activations) {
    case Activations::kF32:
      return "f32";
    case Activations::kFp8:
      return "fp8";
    case Activations::kInt8:
      return "int8";
  }
  return "unknown";
}

Activations activations_named(std::string_view wanted) {
  for (const Activations one : {Activations::kFp8, Activations::kInt8})
    if (name(one) == wanted) return one;
  return Activations::kF32;
}

namespace {

ModelConfig read_gguf_config(const Checkpoint& checkpoint) {
  const ConfigReader config(checkpoint.config(), checkpoint.path());
  const std::string architecture = config.text_or("general.architecture", "");
  if (architecture == "llama") return read_llama_gguf_config(checkpoint, config);
  if (architecture == "qwen3") return read_qwen3_gguf_config(checkpoint, config);
  if (architecture == "qwen3moe") return read_qwen3_moe_gguf_config(checkpoint, config);
  if (architecture == "deepseek2") return read_deepseek2_gguf_config(checkpoint, config);
  config.unsupported("general.architecture", "deepseek2, llama, qwen3, qwen3moe");
}

}  // namespace

ModelConfig read_config(const Checkpoint& checkpoint) {
  if (checkpoint.format() == CheckpointFormat::kGguf) {
    ModelConfig c = read_gguf_config(checkpoint);
    c.block_integers = std::ranges::any_of(
        checkpoint.tensors(), [](const auto& tensor) { return tensor.dtype && is_quantised(*tensor.dtype); });
    return c;
  }
  const ConfigReader config(checkpoint.config(), checkpoint.path() + "/config.json");
  const std::string type = config.text_or("model_type", "");
  if (type == "deepseek_v3" || type == "kimi_k2") return read_deepseek_v3_config(config);
  if (type == "llama") return read_llama_config(config);
  if (type == "qwen3") return read_qwen3_config(config);
  if (type == "qwen3_moe") return read_qwen3_moe_config(config);
  if (type == "step3_text") return read_step3_text_config(config);
  if (type == "step3_vl") return read_step3_vl_config(config);
  if (type == "step3p5") return read_step3p5_config(config);
  config.unsupported("model_type", "deepseek_v3, kimi_k2, llama, qwen3, qwen3_moe, step3_text, step3_vl, step3p5");
}

bool read_block_fp8(const ConfigReader& config) {
  const std::string key = "quantization_config";
  if (!config.has(key)) return false;
  if (!config.raw(key).is_object()) config.invalid(key, "an object");
  const ConfigReader quantised(config.raw(key), config.what() + ": " + key);
  if (quantised.text_or("quant_method", "") != "fp8") quantised.unsupported("quant_method", "fp8");
  if (quantised.text_or("fmt", "e4m3") != "e4m3") quantised.unsupported("fmt", "e4m3");
  if (quantised.text_or("activation_scheme", "dynamic") != "dynamic")
    quantised.unsupported("activation_scheme", "dynamic");
  if (!quantised.has("weight_block_size") ||
      quantised.raw("weight_block_size") != Json::array({kScaleBlock, kScaleBlock}))
    quantised.unsupported("weight_block_size", format("[{}, {}]", kScaleBlock, kScaleBlock));
  return true;
}

std::int64_t ConfigReader::integer(const std::string& key, std::int64_t low, std::int64_t high) const {
  if (!has(key)) invalid(key, "an integer");
  const Json& value = raw(key);
  if (!value.is_number_integer()) invalid(key, "an integer");
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(high))
    invalid(key, format("{} … {}", low, high));
  const auto number = value.get<std::int64_t>();
  if (number < low || number > high) invalid(key, format("{} … {}", low, high));
  return number;
}

std::int64_t ConfigReader::integer_or(const std::string& key, std::int64_t fallback, std::int64_t low,
                                      std::int64_t high) const {
  return has(key) ? integer(key, low, high) : fallback;
}

double ConfigReader::number(const std::string& key, double low, double high) const {
  if (!has(key) || !raw(key).is_number()) invalid(key, "a number");
  const double value = raw(key).get<double>();
  if (!(value >= low && value <= high)) invalid(key, format("{} … {}", low, high));
  return value;
}

double ConfigReader::number_or(const std::string& key, double fallback, double low, double high) const {
  return has(key) ? number(key, low, high) : fallback;
}

bool ConfigReader::boolean_or(const std::string& key, bool fallback) const {
  if (!has(key)) return fallback;
  if (!raw(key).is_boolean()) invalid(key, "true or false");
  return raw(key).get<bool>();
}

std::string ConfigReader::text_or(const std::string& key, const std::string& fallback) const {
  if (!has(key)) return fallback;
  if (!raw(key).is_string()) invalid(key, "a string");
  return raw(key).get<std::string>();
}

std::vector<std::int32_t> ConfigReader::ids(const std::string& key, std::int64_t limit) const {
  std::vector<std::int32_t> ids;
  if (!has(key)) return ids;
  const Json list = raw(key).is_array() ? raw(key) : Json::array({raw(key)});
  for (const Json& id : list) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= limit)
      invalid(key, format("token ids in 0 … {}", limit - 1));
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

namespace {

std::string shown(const Json& object, const std::string& key) {
  if (!object.contains(key)) return "missing";
  std::string text = to_line(object[key]);
  if (text.size() <= 80) return text;
  std::size_t end = 77;
  while ((static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;  // not inside a UTF-8 sequence
  return text.substr(0, end) + "...";
}

}  // namespace

void ConfigReader::unsupported(const std::string& key, const std::string& supported) const {
  throw Error(ErrorCode::kUnsupported,
              format("{}: {} is {}, supported: {}", what_, key, shown(object_, key), supported));
}

void ConfigReader::invalid(const std::string& key, const std::string& expected) const {
  throw Error(ErrorCode::kInvalidData, format("{}: {} is {}, expected {}", what_, key, shown(object_, key), expected));
}

}  // namespace tandem
