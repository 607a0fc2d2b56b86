// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "synthetic/resize.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/format.h"
#include "checkpoint/checkpoint.h"
#include "model/config.h"
#include "synthetic/published_config.h"

namespace tandem {

namespace {

// By what each family calls them.
constexpr const char* kWidths[] = {"hidden_size",      "intermediate_size", "moe_intermediate_size",
                                   "share_expert_dim", "share_q_dim",       "q_lora_rank"};
constexpr const char *kHeads = "num_attention_heads", *kLayers = "num_hidden_layers";
constexpr const char* kGroups[] = {"num_key_value_heads", "num_attention_groups"};
constexpr const char* kExperts[] = {"n_routed_experts", "moe_num_experts", "num_experts"};
constexpr const char* kChosen[] = {"num_experts_per_tok", "moe_top_k"};
constexpr const char* kTokenIds[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
constexpr const char* kImageToken = "image_token_id";
constexpr std::int64_t kWidthGranule = 128;

bool has_number(const OrderedJson& config, const char* key) {
  const auto found = config.find(key);
  return found != config.end() && found->is_number_integer();
}

std::int64_t number(const OrderedJson& config, const char* key) {
  return config.find(key)->get<std::int64_t>();
}

std::int64_t scaled(std::int64_t value, double scale, std::int64_t granule) {
  const auto steps =
      static_cast<std::int64_t>(std::llround(static_cast<double>(value) * scale / static_cast<double>(granule)));
  return std::max<std::int64_t>(steps, 1) * granule;
}

void scale_widths(OrderedJson& config, double scale) {
  for (const char* key : kWidths)
    if (has_number(config, key)) config[key] = scaled(number(config, key), scale, kWidthGranule);
}

// Groups are scaled, and each keeps its number of heads. One group for all heads stays one.
void scale_heads(OrderedJson& config, double scale) {
  if (!has_number(config, kHeads)) return;
  const std::int64_t heads = number(config, kHeads);
  for (const char* key : kGroups) {
    if (!has_number(config, key) || number(config, key) == 1) continue;
    const std::int64_t groups = number(config, key), left = scaled(groups, scale, 1);
    config[key] = left;
    config[kHeads] = heads / groups * left;
    return;
  }
  config[kHeads] = scaled(heads, scale, 1);
}

// Layer i of the new model is of the kind of layer ⌊i · old / layers⌋.
void resize_layers(OrderedJson& config, const std::vector<bool>& routed, std::int64_t layers) {
  const auto old = std::ssize(routed);
  if (layers == old) return;
  config[kLayers] = layers;
  std::vector<std::int64_t> routed_now;
  for (std::int64_t i = 0; i < layers; ++i)
    if (routed[static_cast<std::size_t>(i * old / layers)]) routed_now.push_back(i);
  if (config.contains("moe_layers_enum")) config["moe_layers_enum"] = format("{}", join(routed_now, ","));
  if (config.contains("first_k_dense_replace")) config["first_k_dense_replace"] = layers - std::ssize(routed_now);
  if (config.contains("mlp_only_layers"))
    config["mlp_only_layers"].erase(
        std::remove_if(config["mlp_only_layers"].begin(), config["mlp_only_layers"].end(),
                       [&](const OrderedJson& layer) { return layer.get<std::int64_t>() >= layers; }),
        config["mlp_only_layers"].end());
  // A value for each layer: the first ones stay, and a longer model goes on with them again.
  for (auto& [key, value] : config.items()) {
    if (!value.is_array() || std::ssize(value) < old || key == "mlp_only_layers") continue;
    OrderedJson list = OrderedJson::array();
    for (std::int64_t i = 0; i < layers; ++i) list.push_back(value[static_cast<std::size_t>(i % old)]);
    value = std::move(list);
  }
}

void set_experts(OrderedJson& config, std::int64_t experts) {
  for (const char* key : kExperts)
    if (config.contains(key)) config[key] = experts;
  for (const char* key : kChosen)
    if (has_number(config, key)) config[key] = std::min(number(config, key), experts);
  if (!has_number(config, "n_group")) return;
  const std::int64_t groups = std::gcd(number(config, "n_group"), experts);
  config["n_group"] = groups;
  if (!has_number(config, "topk_group")) return;
  // As many groups as hold the experts to be chosen.
  const std::int64_t chosen = number(config, kChosen[0]), least = (chosen * groups + experts - 1) / experts;
  config["topk_group"] = std::min(std::max(number(config, "topk_group"), least), groups);
}

// Ids beyond the vocabulary move to its end; both parts of a configuration agree on them.
void fit_token_ids(OrderedJson& config, std::int64_t vocab) {
  std::int64_t last = vocab;
  const auto fit = [&](OrderedJson& id) {
    if (id.is_number_integer() && id.get<std::int64_t>() >= vocab) id = --last;
  };
  for (const char* key : kTokenIds) {
    const auto found = config.find(key);
    if (found == config.end()) continue;
    if (found->is_array())
      for (OrderedJson& id : *found) fit(id);
    else
      fit(*found);
  }
  if (has_number(config, kImageToken) && number(config, kImageToken) >= vocab)
    config[kImageToken] = vocab - 1 - std::ssize(kTokenIds);
}

void scale_vision(OrderedJson& vision, double scale) {
  scale_widths(vision, scale);
  if (has_number(vision, "output_hidden_size"))
    vision["output_hidden_size"] = scaled(number(vision, "output_hidden_size"), scale, kWidthGranule);
  if (has_number(vision, kLayers)) vision[kLayers] = scaled(number(vision, kLayers), scale, 1);
  // Heads must divide the width; they are 112 wide in the published model, and stay near that.
  if (has_number(vision, kHeads))
    vision[kHeads] = std::max<std::int64_t>(number(vision, "hidden_size") / kWidthGranule, 1);
}

void set_precision(OrderedJson& whole, OrderedJson& text, bool fp8) {
  for (OrderedJson* part : {&whole, &text}) part->erase("quantization_config");
  if (fp8) text["quantization_config"] = block_fp8_config();
}

}  // namespace

OrderedJson& text_part(OrderedJson& config) {
  const auto text = config.find("text_config");
  return text != config.end() && text->is_object() ? *text : config;
}

OrderedJson resize(OrderedJson config, const Resizing& r) {
  const ModelConfig old = read_config(*Checkpoint::describe(Json(config), "the model"));
  OrderedJson& text = text_part(config);
  if (r.scale != 1 || r.hidden) {
    // Where a head's size is no key of its own it is the width over the heads, which changes.
    const bool is_plain = !text.contains("head_dim") && !text.contains("kv_lora_rank");
    if (is_plain) text["head_dim"] = old.head_dim;
  }
  if (r.scale != 1) {
    scale_widths(text, r.scale);
    scale_heads(text, r.scale);
    if (text.contains("attention_other_setting")) scale_heads(text["attention_other_setting"], r.scale);
    if (config.contains("vision_config")) scale_vision(config["vision_config"], r.scale);
  }
  resize_layers(text, old.routed, r.layers.value_or(scaled(old.layers, r.scale, 1)));
  if (r.hidden) text["hidden_size"] = *r.hidden;
  if (r.experts) set_experts(text, *r.experts);
  if (r.vocab) {
    text["vocab_size"] = *r.vocab;
    fit_token_ids(text, *r.vocab);
    fit_token_ids(config, *r.vocab);
  }
  if (r.fp8) set_precision(config, text, *r.fp8);
  // Layers behind the model's own, which guess further tokens, are not made.
  if (has_number(text, "num_nextn_predict_layers")) text["num_nextn_predict_layers"] = 0;
  for (const auto& [key, value] : r.settings) text[key] = value;
  return config;
}

}  // namespace tandem
