// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the rest of the engine needs to know of a model: sizes, not weights. Each architecture fills it from the file
// that its checkpoints bring (config.json, GGUF metadata); a value that this build cannot honour is refused by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "ops/kv_cache.h"
#include "ops/operators.h"

namespace tandem {

// How the inputs of linear layers are rounded: not at all, as FP8 products take them (QuantiseRows), or, where the
// weight is in blocks of integers, to eight bits (Int8MatMul); then those of the head, too.
enum class Activations : std::uint8_t { kF32, kFp8, kInt8 };
std::string_view name(Activations activations);
Activations activations_named(std::string_view name);  // one of those three names

// Rotary embedding. pairs m rotate by position · inv_freq[m], inv_freq[m] = theta^(-2m/dim), rescaled.
struct RopeConfig {
  double theta = 10000;
  std::int32_t dim = 0;  // elements of a head that rotate
  // The "llama3" rule: long wavelengths are slowed by factor, short ones kept, those between interpolated.
  bool llama3 = false;
  double factor = 1, low_freq_factor = 1, high_freq_factor = 1;
  double original_context = 0;
  // The "yarn" rule: frequencies with less than beta_slow turns in the original context are slowed by factor, those
  // with more than beta_fast kept, those between interpolated.
  bool yarn = false;
  double beta_fast = 32, beta_slow = 1;
  float magnitude = 1;          // of sine and cosine
  bool interleaved = false;     // pairs are neighbours
  std::vector<float> divisors;  // of each frequency, when the file brings them (GGUF rope_freqs)
};

std::vector<float> rope_inv_freq(const RopeConfig& rope);

// How a router turns logits into choices and weights; more in SelectExperts.
struct RouterConfig {
  RouterScore score = RouterScore::kSoftmax;
  bool bias = false;
  std::int32_t groups = 1, groups_kept = 1;
  float scale = 1;
};

// Layers that see the last positions only, among others that see everything. The cache keeps no more for them.
struct WindowConfig {
  std::int32_t tokens = 0;  // that a row sees, its own included; 0: there are no such layers
  std::vector<bool> layers;
  std::int32_t heads = 0, kv_heads = 0;  // theirs
};

// A vision tower and what joins it to the text.
struct VisionConfig {
  std::int32_t layers = 0;
  std::int32_t hidden = 0;
  std::int32_t heads = 0;
  std::int32_t mlp_width = 0;
  std::int32_t image_side = 0;  // pixels; the table of positions is for this
  std::int32_t patch_side = 0;
  float norm_eps = 1e-6f;
  std::int32_t output_hidden = 0;  // of the first downsampler; the second has twice as many
  bool projector_bias = false;
  std::int32_t image_token = 0;  // whose rows the visual ones replace
  std::string start_token, patch_token, end_token;
  std::int32_t whole_tokens = 0, crop_tokens = 0;  // rows of one view

  std::int32_t grid() const { return image_side / patch_side; }
};

struct ModelConfig {
  std::string architecture;  // "deepseek_v3", "llama", "qwen3", "qwen3_moe", "step3_text", "step3_vl", "step3p5"
  std::int32_t layers = 0;
  std::int32_t hidden = 0;
  std::int32_t vocab = 0;
  std::int64_t context_tokens_max = 0;
  float norm_eps = 1e-5f;

  std::int32_t heads = 0;
  std::int32_t kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t query_rank = 0;  // MFA, MLA: width of the shared query projection; 0 elsewhere
  std::int32_t latent = 0;      // MLA: width of what keys and values are made from; 0 elsewhere
  std::int32_t value_dim = 0;   // MLA: of a head's value; elsewhere that is head_dim
  float attention_factor = 1;   // of scores, on top of 1/sqrt(head_dim)
  RopeConfig rope;
  std::vector<RopeConfig> layer_ropes;  // where layers differ
  WindowConfig window;

  std::int32_t ffn_width = 0;  // of dense layers
  std::vector<bool> routed;    // per layer: experts instead of a dense FFN
  std::int32_t experts = 0;
  std::int32_t experts_per_token = 0;
  std::int32_t expert_width = 0;
  std::vector<double> expert_limits, shared_limits;  // of SwiGLU in each layer, where some have one
  std::int32_t shared_width = 0;                     // of the shared expert; 0: none
  bool renormalise = false;                          // the weights of the chosen experts
  RouterConfig router;

  bool block_fp8 = false;       // the file may hold E4M3 matrices with a scale for each block of 128 × 128
  bool block_integers = false;  // the file holds matrices in blocks of integers, as GGUF's quantised types are
  bool tied_head = false;
  std::int32_t next_token_layers = 0;  // behind the others, for guessing further tokens; their weights are not read
  std::vector<std::int32_t> eos_ids;
  std::optional<VisionConfig> vision;

  bool is_routed(std::int32_t layer) const { return routed[layer]; }
  // Whether a layer has what every token uses: a dense FFN or a shared expert.
  bool has_shared_ffn(std::int32_t layer) const { return !routed[layer] || shared_width > 0; }
  bool is_windowed(std::int32_t layer) const { return window.tokens > 0 && window.layers[layer]; }
  std::int32_t heads_of(std::int32_t layer) const { return is_windowed(layer) ? window.heads : heads; }
  std::int32_t kv_heads_of(std::int32_t layer) const { return is_windowed(layer) ? window.kv_heads : kv_heads; }
  // The place of a layer in its cache: among the windowed layers, or among the others.
  std::int32_t kv_layer(std::int32_t layer) const;
  // What the cache keeps of layers that see everything. MLA: the latent and one rotated key, which all heads read; the
  // latent is the value too.
  KvSpec kv_spec(DType dtype, std::int64_t blocks) const;
  std::int64_t kv_token_elements() const {
    const KvSpec kv = kv_spec(DType::kF32, 0);
    return kv.layers * kv.token_elements();
  }
  // The same of windowed layers; of no layers when there are none.
  KvSpec window_kv_spec(DType dtype, std::int64_t blocks) const;
};

// Reads the configuration of a supported architecture. Throws Error{kUnsupported} naming the architecture or the key
// whose value is not supported, {kInvalidData} for a missing key or a value out of range.
ModelConfig read_config(const Checkpoint& checkpoint);

}  // namespace tandem
