// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The sizes of a model, as far as they decide what a step costs: no weights, no names of tensors. From a TOML file,
// some of which the program brings along (src/plan/models), or from the configuration of a checkpoint.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"
#include "tensor/dtype.h"

namespace tandem {

// kGrouped: GQA, with MHA and MQA as its ends. kLightning: linear attention, whose state has heads · head_dim² elements
// and does not grow.
enum class AttentionKind : std::uint8_t { kGrouped, kMfa, kMla, kLightning };
std::string_view name(AttentionKind kind);  // "gqa", "mfa", "mla", "lightning"

struct AttentionShape {
  AttentionKind kind = AttentionKind::kGrouped;
  std::int32_t heads = 0;
  std::int32_t kv_heads = 1;
  std::int32_t head_dim = 0;    // of a query head; MLA: plain and rotated elements
  std::int32_t query_rank = 0;  // MFA, MLA (0 there: no down-projection)
  std::int32_t latent = 0;      // MLA: width of what keys and values are made from
  std::int32_t rope_dim = 0;    // that rotate
  std::int32_t value_dim = 0;   // MLA: of a head's value
  std::int32_t seen_max = 0;    // positions that a row sees at most, of a window or a chunk; 0: all
  bool norm_heads = false, gate_heads = false;
  std::optional<DType> kv;  // when the model fixes the type of its cache

  bool operator==(const AttentionShape&) const = default;
};

struct FfnShape {
  std::int32_t width = 0;    // of what every token uses, a dense FFN or the shared experts together; 0: none
  std::int32_t experts = 0;  // 0: the layer is dense
  std::int32_t experts_per_token = 0;
  std::int32_t expert_width = 0;

  bool routed() const { return experts > 0; }
  bool operator==(const FfnShape&) const = default;
};

struct LayerShape {
  AttentionShape attention;
  FfnShape ffn;

  bool operator==(const LayerShape&) const = default;
};

// A stretch of equal layers.
struct LayerRun {
  LayerShape layer;
  std::int32_t count = 1;
};

struct ModelShape {
  std::string name;
  std::int32_t hidden = 0;
  std::int32_t vocab = 0;
  std::vector<LayerRun> runs;  // in the order of the layers

  std::int32_t layers() const;
  const LayerShape& layer(std::int32_t index) const;
  // The same layers, equal ones together: what sums over layers are taken over.
  std::vector<LayerRun> kinds() const;
  // Of the routed layers with the most experts; 0: none is routed.
  std::int32_t experts() const;
  // Of the routed layers with the narrowest experts; 0: none is routed.
  std::int64_t expert_width() const;
  double parameters() const;  // of products; norms are left out, embedding and head counted as two
};

// what names the source in messages. Throws Error{kInvalidData}.
ModelShape parse_shape(std::string_view toml, const std::string& what);

// Of a model that the engine runs.
ModelShape shape_of(const ModelConfig& config, const std::string& name);

// A name of a file that the program brings; a path to one that ends in .toml; or a checkpoint, or a config.json, of an
// architecture that the engine runs. Throws Error.
ModelShape find_shape(const std::string& name_or_path);

// The names that find_shape knows, in the order of the paper's Table 2.
std::vector<std::string> shape_names();

}  // namespace tandem
