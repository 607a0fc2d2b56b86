// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/shape.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/format.h"
#include "base/settings_table.h"
#include "base/toml.h"
#include "checkpoint/checkpoint.h"
#include "model/config_reader.h"
#include "plan/plan_file.h"

namespace tandem {

namespace {

constexpr std::int64_t kRunsMax = 1024;

std::int32_t size_of(SettingsTable& table, const std::string& key, std::int64_t max) {
  return static_cast<std::int32_t>(table.integer(key, 1, max));
}

std::int32_t size_or_none(SettingsTable& table, const std::string& key, std::int64_t max) {
  return static_cast<std::int32_t>(table.integer_or(key, 0, 1, max));
}

std::optional<DType> read_kv_type(SettingsTable& table) {
  const std::string word = table.word_or("kv", "", {"fp8", "bf16", "f32"});
  if (word.empty()) return {};
  return word == "fp8" ? DType::kF8E4M3 : word == "bf16" ? DType::kBF16 : DType::kF32;
}

AttentionShape read_attention(SettingsTable table) {
  AttentionShape a;
  const std::string kind = table.word("kind", {"gqa", "mfa", "mla", "lightning"});
  a.kind = kind == "gqa"   ? AttentionKind::kGrouped
           : kind == "mfa" ? AttentionKind::kMfa
           : kind == "mla" ? AttentionKind::kMla
                           : AttentionKind::kLightning;
  a.heads = size_of(table, "heads", kHeadsMax);
  a.head_dim = size_of(table, "head_dim", head_dim_max(a.heads));
  a.rope_dim = a.head_dim;
  if (a.kind == AttentionKind::kGrouped) {
    a.kv_heads = size_of(table, "kv_heads", a.heads);
    if (a.heads % a.kv_heads != 0) table.refuse("kv_heads", format("has to divide heads, which is {}", a.heads));
    const std::int32_t window = size_or_none(table, "window", kContextMax);
    const std::int32_t chunk = size_or_none(table, "chunk", kContextMax);
    if (window > 0 && chunk > 0) table.refuse("chunk", "and window exclude each other");
    a.seen_max = std::max(window, chunk);
    a.norm_heads = table.boolean_or("norm_heads", false);
    a.gate_heads = table.boolean_or("gate_heads", false);
  }
  if (a.kind == AttentionKind::kMfa) a.query_rank = size_of(table, "query_rank", kWidthMax);
  if (a.kind == AttentionKind::kMla) {
    a.query_rank = size_or_none(table, "query_rank", kWidthMax);
    a.latent = size_of(table, "latent", head_dim_max(a.heads));
    a.rope_dim = size_of(table, "rope_dim", a.head_dim);
    a.value_dim = size_of(table, "value_dim", head_dim_max(a.heads));
  }
  if (a.kind != AttentionKind::kLightning) a.kv = read_kv_type(table);
  table.finish();
  return a;
}

FfnShape read_ffn(SettingsTable table) {
  FfnShape f;
  f.width = size_or_none(table, "width", kWidthMax);
  f.experts = size_or_none(table, "experts", kExpertsMax);
  if (f.experts > 0) {
    f.experts_per_token = size_of(table, "experts_per_token", f.experts);
    f.expert_width = size_of(table, "expert_width", kWidthMax);
  } else if (f.width == 0) {
    table.refuse("width", "is missing, and so is experts");
  }
  table.finish();
  return f;
}

// Next to an equal layer it makes that run longer.
void append(std::vector<LayerRun>& runs, const LayerRun& run) {
  if (!runs.empty() && runs.back().layer == run.layer)
    runs.back().count += run.count;
  else
    runs.push_back(run);
}

LayerShape layer_of(const ModelConfig& c, std::int32_t i) {
  AttentionShape a{.heads = c.heads_of(i), .kv_heads = c.kv_heads_of(i), .head_dim = c.head_dim};
  const RopeConfig& rope = c.layer_ropes.empty() ? c.rope : c.layer_ropes[static_cast<std::size_t>(i)];
  a.query_rank = c.query_rank;
  a.rope_dim = rope.dim;
  a.seen_max = c.is_windowed(i) ? c.window.tokens : 0;
  a.norm_heads = c.architecture == "qwen3" || c.architecture == "qwen3_moe" || c.architecture == "step3p5";
  a.gate_heads = c.architecture == "step3p5";
  if (c.latent > 0) {
    a.kind = AttentionKind::kMla;
    a.kv_heads = 1;
    a.latent = c.latent;
    a.value_dim = c.value_dim;
  } else if (c.query_rank > 0) {
    a.kind = AttentionKind::kMfa;
  }
  FfnShape f{.width = c.ffn_width};
  if (c.is_routed(i)) f = {c.shared_width, c.experts, c.experts_per_token, c.expert_width};
  return {a, f};
}

std::int64_t projection_parameters(const AttentionShape& a, std::int64_t hidden) {
  const std::int64_t q = std::int64_t{a.heads} * a.head_dim, kv = std::int64_t{a.kv_heads} * a.head_dim;
  switch (a.kind) {
    case AttentionKind::kGrouped:
      return hidden * (2 * q + 2 * kv + (a.gate_heads ? a.heads : 0));
    case AttentionKind::kMfa:
      return hidden * (a.query_rank + 2 * kv + q) + a.query_rank * q;
    case AttentionKind::kMla: {
      const std::int64_t down = a.query_rank > 0 ? a.query_rank : q, plain = a.head_dim - a.rope_dim;
      return hidden * (down + a.latent + a.rope_dim) + a.query_rank * q +
             std::int64_t{a.latent} * a.heads * (plain + a.value_dim) + std::int64_t{a.heads} * a.value_dim * hidden;
    }
    case AttentionKind::kLightning:
      return 5 * hidden * q;
  }
  return 0;
}

}  // namespace

std::string_view name(AttentionKind kind) {
  static constexpr std::string_view kNames[] = {"gqa", "mfa", "mla", "lightning"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::int32_t ModelShape::layers() const {
  std::int32_t all = 0;
  for (const LayerRun& run : runs) all += run.count;
  return all;
}

const LayerShape& ModelShape::layer(std::int32_t index) const {
  for (const LayerRun& run : runs) {
    if (index < run.count) return run.layer;
    index -= run.count;
  }
  TANDEM_CHECK(false, "there is no such layer");
  return runs.back().layer;
}

std::vector<LayerRun> ModelShape::kinds() const {
  std::vector<LayerRun> out;
  for (const LayerRun& run : runs) {
    const auto known = std::ranges::find(out, run.layer, &LayerRun::layer);
    if (known == out.end())
      out.push_back(run);
    else
      known->count += run.count;
  }
  return out;
}

std::int32_t ModelShape::experts() const {
  std::int32_t most = 0;
  for (const LayerRun& run : runs) most = std::max(most, run.layer.ffn.experts);
  return most;
}

std::int64_t ModelShape::expert_width() const {
  std::int64_t least = 0;
  for (const LayerRun& run : runs)
    if (const FfnShape& f = run.layer.ffn; f.routed() && (least == 0 || f.expert_width < least)) least = f.expert_width;
  return least;
}

double ModelShape::parameters() const {
  const double width = hidden;
  double all = 2.0 * vocab * width;
  for (const LayerRun& run : runs) {
    const FfnShape& f = run.layer.ffn;
    const double ffn = 3 * width * (f.width + static_cast<double>(f.experts) * f.expert_width) + width * f.experts;
    all += run.count * (static_cast<double>(projection_parameters(run.layer.attention, hidden)) + ffn);
  }
  return all;
}

ModelShape parse_shape(std::string_view toml, const std::string& what) {
  const Json json = parse_toml(toml, what);
  SettingsTable table(json, what);
  ModelShape shape;
  shape.name = table.text("name");
  shape.hidden = size_of(table, "hidden", kWidthMax);
  shape.vocab = size_of(table, "vocab", kVocabMax);
  const std::int64_t repeat = table.integer_or("repeat", 1, 1, kLayersMax);
  std::vector<LayerRun> once;
  for (SettingsTable& layers : table.tables("layers")) {
    const std::int32_t count = static_cast<std::int32_t>(layers.integer_or("count", 1, 1, kLayersMax));
    once.push_back({{read_attention(layers.table("attention")), read_ffn(layers.table("ffn"))}, count});
    layers.finish();
  }
  table.finish();
  if (once.empty()) table.refuse("layers", "is missing ([[layers]])");
  if (static_cast<std::int64_t>(once.size()) * repeat > kRunsMax)
    table.refuse("layers", format("makes {} stretches of layers, limit is {}", once.size() * repeat, kRunsMax));
  for (std::int64_t i = 0; i < repeat; ++i)
    for (const LayerRun& run : once) append(shape.runs, run);
  if (shape.layers() > kLayersMax) table.refuse("layers", format("are {}, limit is {}", shape.layers(), kLayersMax));
  return shape;
}

ModelShape shape_of(const ModelConfig& config, const std::string& name) {
  ModelShape shape{.name = name, .hidden = config.hidden, .vocab = config.vocab, .runs = {}};
  for (std::int32_t i = 0; i < config.layers; ++i) append(shape.runs, {layer_of(config, i), 1});
  return shape;
}

ModelShape find_shape(const std::string& name_or_path) {
  if (!name_or_path.ends_with(".toml") && std::filesystem::exists(name_or_path)) {
    const std::unique_ptr<Checkpoint> checkpoint = Checkpoint::open_description(name_or_path);
    std::filesystem::path path = std::filesystem::path(name_or_path).lexically_normal();
    if (path.filename() == "config.json" || path.filename().empty()) path = path.parent_path();
    return shape_of(read_config(*checkpoint), path.filename().empty() ? name_or_path : path.filename().string());
  }
  const PlanFile file = find_plan_file(name_or_path, builtin_models(), "model");
  return parse_shape(file.text, file.what);
}

std::vector<std::string> shape_names() {
  return names_of(builtin_models());
}

}  // namespace tandem
