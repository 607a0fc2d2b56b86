// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the rest of the engine needs to know of a model: sizes, not weights. Each architecture fills it from the file
// that its checkpoints bring (config.json, GGUF metadata); a value that this build cannot honour is refused by name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace tandem {

// How the inputs of linear layers are rounded: not at all, or as FP8 products take them (QuantiseRows).
enum class Activations : std::uint8_t { kF32, kFp8 };
std::string_view name(Activations activations);

// Rotary embedding. pairs m rotate by position · inv_freq[m], inv_freq[m] = theta^(-2m/dim), rescaled.
struct RopeConfig {
  double theta = 10000;
  std::int32_t dim = 0;  // elements of a head that rotate
  // The "llama3" rule: long wavelengths are slowed by factor, short ones kept, those between interpolated.
  bool llama3 = false;
  double factor = 1, low_freq_factor = 1, high_freq_factor = 1;
  double original_context = 0;
  std::vector<float> divisors;  // of each frequency, when the file brings them (GGUF rope_freqs)
};

std::vector<float> rope_inv_freq(const RopeConfig& rope);

struct ModelConfig {
  std::string architecture;  // "llama", "qwen3", "qwen3_moe", "step3_text"
  std::int32_t layers = 0;
  std::int32_t hidden = 0;
  std::int32_t vocab = 0;
  std::int64_t context_tokens_max = 0;
  float norm_eps = 1e-5f;

  std::int32_t heads = 0;
  std::int32_t kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t query_rank = 0;  // MFA: width of the shared query projection; 0 elsewhere
  RopeConfig rope;

  std::int32_t ffn_width = 0;  // of dense layers
  std::vector<bool> routed;    // per layer: experts instead of a dense FFN
  std::int32_t experts = 0;
  std::int32_t experts_per_token = 0;
  std::int32_t expert_width = 0;
  std::int32_t shared_width = 0;  // of the shared expert; 0: none
  bool renormalise = false;       // the weights of the chosen experts

  bool block_fp8 = false;  // the file may hold E4M3 matrices with a scale for each block of 128 × 128
  bool tied_head = false;
  std::vector<std::int32_t> eos_ids;

  bool is_routed(std::int32_t layer) const { return routed[layer]; }
  // Whether a layer has what every token uses: a dense FFN or a shared expert.
  bool has_shared_ffn(std::int32_t layer) const { return !routed[layer] || shared_width > 0; }
  std::int64_t kv_token_elements() const { return 2ll * layers * kv_heads * head_dim; }
};

// Reads the configuration of a supported architecture. Throws Error{kUnsupported} naming the architecture or the key
// whose value is not supported, {kInvalidData} for a missing key or a value out of range.
ModelConfig read_config(const Checkpoint& checkpoint);

}  // namespace tandem
