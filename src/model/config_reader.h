// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Typed, range-checked access to a configuration object. Messages name the key, the value and the limit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/config.h"

namespace tandem {

class ConfigReader {
 public:
  // what names the file in messages.
  ConfigReader(const Json& object, std::string what) : object_(object), what_(std::move(what)) {}

  bool has(const std::string& key) const { return object_.contains(key) && !object_[key].is_null(); }
  const Json& raw(const std::string& key) const { return object_[key]; }
  std::int64_t integer(const std::string& key, std::int64_t low, std::int64_t high) const;
  std::int64_t integer_or(const std::string& key, std::int64_t fallback, std::int64_t low, std::int64_t high) const;
  double number(const std::string& key, double low, double high) const;
  double number_or(const std::string& key, double fallback, double low, double high) const;
  bool boolean_or(const std::string& key, bool fallback) const;
  std::string text_or(const std::string& key, const std::string& fallback) const;
  // An integer or a list of integers.
  std::vector<std::int32_t> ids(const std::string& key, std::int64_t limit) const;

  // Refuses the checkpoint: "config.json: hidden_act is \"gelu\", supported: silu".
  [[noreturn]] void unsupported(const std::string& key, const std::string& supported) const;
  [[noreturn]] void invalid(const std::string& key, const std::string& expected) const;
  const std::string& what() const { return what_; }

 private:
  const Json& object_;
  std::string what_;
};

// Sizes beyond these are a broken file, not a model. They keep every product of two sizes inside 64 bits, and the list
// of tensors that a broken file asks for inside memory.
inline constexpr std::int64_t kLayersMax = 1024;
inline constexpr std::int64_t kWidthMax = 1 << 22;
inline constexpr std::int64_t kHeadsMax = 4096;
inline constexpr std::int64_t kVocabMax = 1 << 24;
inline constexpr std::int64_t kExpertsMax = 4096;
inline constexpr std::int64_t kContextMax = 1 << 30;

// All heads side by side are a width too.
inline std::int64_t head_dim_max(std::int32_t heads) {
  return kWidthMax / heads;
}

// Whether quantization_config announces E4M3 weights in blocks of 128 × 128. Refuses every other one by name.
bool read_block_fp8(const ConfigReader& config);

// One per architecture, in its file.
ModelConfig read_deepseek_v3_config(const ConfigReader& config);
ModelConfig read_deepseek2_gguf_config(const Checkpoint& checkpoint, const ConfigReader& config);
ModelConfig read_llama_config(const ConfigReader& config);
ModelConfig read_llama_gguf_config(const Checkpoint& checkpoint, const ConfigReader& config);
ModelConfig read_qwen3_config(const ConfigReader& config);
ModelConfig read_qwen3_gguf_config(const Checkpoint& checkpoint, const ConfigReader& config);
ModelConfig read_qwen3_moe_config(const ConfigReader& config);
ModelConfig read_qwen3_moe_gguf_config(const Checkpoint& checkpoint, const ConfigReader& config);
ModelConfig read_step3_text_config(const ConfigReader& config);
ModelConfig read_step3_vl_config(const ConfigReader& config);
ModelConfig read_step3p5_config(const ConfigReader& config);

}  // namespace tandem
