// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem inspect: what is in a checkpoint, or what a configuration asks for, without reading a weight.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "base/format.h"
#include "cli/command.h"
#include "engine/worker/layout.h"
#include "model/model.h"
#include "model/step3_vision.h"

namespace tandem {

namespace {

struct Options {
  std::string path;
  std::string layout;
  bool tensors = false;
  bool json = false;
};

struct Count {
  std::int64_t tensors = 0, elements = 0, bytes = 0;
};

// Sizes in one precision: the stored one, or one that a configuration alone leaves open.
struct Sizing {
  std::string precision;
  PartSizes parts;
  std::vector<std::pair<std::string, PartSizes>> workers;  // of --layout: "A0", "F0", …
};

struct Findings {
  std::map<std::string, Count> by_type;
  Count total;
  std::optional<ModelConfig> config;  // none: the architecture is not supported
  std::vector<Sizing> sizings;        // empty: the tensors are not
  std::string reason;                 // why it is not supported; empty when it is
};

// Every attention worker has the same share.
std::vector<std::pair<std::string, PartSizes>> measure_workers(const Checkpoint& checkpoint, const Layout& layout,
                                                               std::int32_t experts, AssumedPrecision precision) {
  const std::vector<ModelShare> all = shares(layout, experts);
  std::vector<std::pair<std::string, PartSizes>> workers;
  for (std::int32_t i = 0; i < layout.workers(); ++i) {
    const std::int32_t f = i - layout.attention_workers;
    const std::string label = layout.local() ? "A and F" : f < 0 ? format("A{}", i) : format("F{}", f);
    workers.emplace_back(label, measure_share(checkpoint, all[std::max(f + 1, 0)], precision));
  }
  if (PartSizes vision = measure_vision(checkpoint); !vision.empty()) workers.emplace_back("vision", std::move(vision));
  return workers;
}

Findings look_at(const Checkpoint& checkpoint, const std::optional<Layout>& layout) {
  Findings f;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    for (Count* count : {&f.by_type[tensor.type_name], &f.total}) {
      ++count->tensors;
      count->elements += tensor.shape.elements();
      count->bytes += static_cast<std::int64_t>(tensor.bytes);
    }
  }
  using Precision = std::pair<const char*, AssumedPrecision>;
  const std::vector<Precision> open{{"bf16", AssumedPrecision::kBf16}, {"fp8", AssumedPrecision::kFp8}};
  const std::vector<Precision> stored{{"stored", AssumedPrecision::kBf16}};
  const std::vector<Precision>& precisions = checkpoint.has_weights() ? stored : open;
  try {
    f.config = read_config(checkpoint);
    for (const auto& [label, precision] : precisions)
      f.sizings.push_back({label, measure_parts(checkpoint, precision), {}});
  } catch (const Error& error) {
    f.reason = error.message();
  }
  // A layout that the model cannot have says nothing about the model.
  for (std::size_t i = 0; layout && f.reason.empty() && i < f.sizings.size(); ++i)
    f.sizings[i].workers = measure_workers(checkpoint, *layout, f.config->experts, precisions[i].second);
  return f;
}

std::int64_t kv_token_bytes(const ModelConfig& config, DType dtype) {
  return static_cast<std::int64_t>(config.kv_spec(dtype, 0).token_bytes());
}

std::string mebibytes(std::int64_t bytes) {
  return format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

// 320,969,912,832
std::string grouped(std::int64_t count) {
  std::string digits = format("{}", count);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3) digits.insert(at, 1, ',');
  return digits;
}

std::string config_text(const ModelConfig& c) {
  std::string text;
  text += format("layers        {}, {} wide, vocabulary {}\n", c.layers, c.hidden, c.vocab);
  text += format("attention     {} heads of {}, {} for keys and values{}{}\n", c.heads, c.head_dim, c.kv_heads,
                 c.query_rank ? format(", query rank {}", c.query_rank) : "",
                 c.latent ? format(", latent {}", c.latent) : "");
  if (const auto dense = std::ranges::count(c.routed, false); dense > 0)
    text += format("dense FFN     {} layers, {} wide\n", dense, c.ffn_width);
  if (const auto routed = std::ranges::count(c.routed, true); routed > 0)
    text += format("experts       {} layers of {} experts {} wide, {} per token{}\n", routed, c.experts, c.expert_width,
                   c.experts_per_token, c.shared_width ? format(", shared expert {} wide", c.shared_width) : "");
  text += format("context       {} tokens\n", c.context_tokens_max);
  text += format("kv per token  {} bytes in bf16, {} in fp8, {} in f32\n", kv_token_bytes(c, DType::kBF16),
                 kv_token_bytes(c, DType::kF8E4M3), kv_token_bytes(c, DType::kF32));
  if (const auto& v = c.vision)
    text += format("vision        {} layers, {} wide, {} heads, MLP {} wide; {} rows of a picture, {} of a crop\n",
                   v->layers, v->hidden, v->heads, v->mlp_width, v->whole_tokens, v->crop_tokens);
  if (c.window.tokens > 0)
    text += format("window        {} layers keep the last {} tokens, {} bytes each in bf16\n",
                   c.window_kv_spec(DType::kBF16, 0).layers, c.window.tokens,
                   c.window_kv_spec(DType::kBF16, 0).token_bytes());
  return text;
}

std::int64_t parameters_of(const PartSizes& parts, std::initializer_list<Part> chosen) {
  std::int64_t sum = 0;
  for (const Part part : chosen)
    if (const auto found = parts.find(part); found != parts.end()) sum += found->second.parameters;
  return sum;
}

// What one layer of each kind has, and what a token passes through.
std::vector<std::pair<std::string, std::int64_t>> parameter_accounts(const ModelConfig& c, const PartSizes& parts) {
  const std::int64_t routed = std::ranges::count(c.routed, true), dense = c.layers - routed;
  const std::int64_t experts = parameters_of(parts, {Part::kExperts});
  std::vector<std::pair<std::string, std::int64_t>> accounts;
  accounts.emplace_back("attention layer", parameters_of(parts, {Part::kAttention}) / c.layers);
  if (dense) accounts.emplace_back("dense FFN layer", parameters_of(parts, {Part::kDenseFfn}) / dense);
  if (routed)
    accounts.emplace_back("routed FFN layer",
                          (experts + parameters_of(parts, {Part::kSharedExpert, Part::kRouter})) / routed);
  std::int64_t total = 0;
  for (const auto& [part, size] : parts) total += size.parameters;
  const std::int64_t vision = parameters_of(parts, {Part::kVision, Part::kProjector}), language = total - vision;
  const std::int64_t active = language - (routed ? experts / c.experts * (c.experts - c.experts_per_token) : 0);
  accounts.emplace_back("active per token", active);
  accounts.emplace_back("… less embedding", active - parameters_of(parts, {Part::kEmbedding}));
  if (vision) accounts.emplace_back("language model", language);
  accounts.emplace_back("total", total);
  return accounts;
}

std::string parts_text(const ModelConfig& config, const std::vector<Sizing>& sizings) {
  std::string text = format("\n{:<17} {:>16}", "part", "parameters");
  for (const Sizing& s : sizings) text += format(" {:>16}", s.precision);
  text += "\n";
  const auto row = [&](const std::string& label, std::int64_t parameters, const auto& bytes_in) {
    text += format("{:<17} {:>16}", label, grouped(parameters));
    for (const Sizing& s : sizings) text += format(" {:>16}", mebibytes(bytes_in(s)));
    text += "\n";
  };
  for (const auto& [part, size] : sizings[0].parts)
    row(std::string(name(part)), size.parameters, [part = part](const Sizing& s) { return s.parts.at(part).bytes; });
  text += "\n";
  for (const auto& [label, parameters] : parameter_accounts(config, sizings[0].parts)) {
    if (label == "total")
      row(label, parameters, [](const Sizing& s) { return total_bytes(s.parts); });
    else
      text += format("{:<17} {:>16}\n", label, grouped(parameters));
  }
  if (sizings[0].workers.empty()) return text;
  text += format("\n{:<17} {:>16}", "worker", "parameters");
  for (const Sizing& s : sizings) text += format(" {:>16}", s.precision);
  text += "\n";
  for (std::size_t i = 0; i < sizings[0].workers.size(); ++i) {
    std::int64_t parameters = 0;
    for (const auto& [part, size] : sizings[0].workers[i].second) parameters += size.parameters;
    row(sizings[0].workers[i].first, parameters, [i](const Sizing& s) { return total_bytes(s.workers[i].second); });
  }
  return text;
}

std::string text_of(const Checkpoint& checkpoint, const Findings& f) {
  std::string text;
  text += format("path          {}\n", checkpoint.path());
  text += format("format        {}\n", checkpoint.has_weights() ? name(checkpoint.format()) : "a configuration alone");
  text += format("architecture  {}\n", f.config ? f.config->architecture : "not known here");
  text += format("supported     {}\n", f.reason.empty() ? "yes" : "no: " + f.reason);
  if (f.config) text += config_text(*f.config);
  if (checkpoint.has_weights())
    text += format("weights       {} elements, {}\n", grouped(f.total.elements), mebibytes(f.total.bytes));
  if (!f.sizings.empty()) text += parts_text(*f.config, f.sizings);
  if (!f.by_type.empty()) text += format("\n{:<17} {:>16} {:>16} {:>9}\n", "type", "elements", "memory", "tensors");
  for (const auto& [type, count] : f.by_type)
    text +=
        format("{:<17} {:>16} {:>16} {:>9}\n", type, grouped(count.elements), mebibytes(count.bytes), count.tensors);
  return text;
}

std::string shape_text(const TensorInfo& tensor) {
  std::vector<std::int64_t> dims;
  for (int i = 0; i < tensor.shape.rank; ++i) dims.push_back(tensor.shape[i]);
  return format("[{}]", join(dims, ", "));
}

OrderedJson json_of(const PartSizes& parts) {
  OrderedJson json;
  for (const auto& [part, size] : parts)
    json[std::string(name(part))] = {{"parameters", size.parameters}, {"bytes", size.bytes}};
  return json;
}

OrderedJson json_of(const Checkpoint& checkpoint, const Findings& f, bool tensors) {
  OrderedJson json;
  json["path"] = checkpoint.path();
  json["format"] = checkpoint.has_weights() ? name(checkpoint.format()) : "config";
  json["supported"] = f.reason.empty();
  if (!f.reason.empty()) json["reason"] = f.reason;
  if (f.config) {
    json["architecture"] = f.config->architecture;
    json["layers"] = f.config->layers;
    json["hidden"] = f.config->hidden;
    json["vocab"] = f.config->vocab;
    json["context_tokens_max"] = f.config->context_tokens_max;
    for (const auto& [label, dtype] : {std::pair{"bf16", DType::kBF16}, {"fp8", DType::kF8E4M3}, {"f32", DType::kF32}})
      json["kv_token_bytes"][label] = kv_token_bytes(*f.config, dtype);
  }
  if (!f.sizings.empty()) {
    for (const auto& [label, parameters] : parameter_accounts(*f.config, f.sizings[0].parts))
      json["parameter_accounts"][label] = parameters;
    json["parts"] = json_of(f.sizings[0].parts);
  }
  json["parameters"] = f.sizings.empty() ? f.total.elements : json["parameter_accounts"]["total"].get<std::int64_t>();
  for (const Sizing& s : f.sizings) {
    json["weight_bytes"][s.precision] = total_bytes(s.parts);
    for (const auto& [label, parts] : s.workers) json["workers"][label][s.precision] = json_of(parts);
  }
  for (const auto& [type, count] : f.by_type)
    json["types"][type] = {{"tensors", count.tensors}, {"elements", count.elements}, {"bytes", count.bytes}};
  if (tensors)
    for (const TensorInfo& tensor : checkpoint.tensors())
      json["tensors"].push_back(
          {{"name", tensor.name}, {"type", tensor.type_name}, {"shape", shape_text(tensor)}, {"bytes", tensor.bytes}});
  return json;
}

int run(const Options& options) {
  const std::unique_ptr<Checkpoint> checkpoint = Checkpoint::open_description(options.path);
  std::optional<Layout> layout;
  if (!options.layout.empty()) layout = parse_layout(options.layout);
  const Findings findings = look_at(*checkpoint, layout);
  std::string text;
  if (options.json) {
    text = json_of(*checkpoint, findings, options.tensors).dump(2, ' ', false, OrderedJson::error_handler_t::replace) +
           "\n";
  } else {
    text = text_of(*checkpoint, findings);
    if (options.tensors) text += "\n";
    for (const TensorInfo& tensor : options.tensors ? checkpoint->tensors() : std::vector<TensorInfo>())
      text += format("{:<8} {:<18} {}\n", tensor.type_name, shape_text(tensor), printable(tensor.name));
  }
  std::fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace

Action declare_inspect(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  app.add_option("path", options->path,
                 "a GGUF file, a folder with config.json and safetensors, or a config.json alone")
      ->required();
  app.add_option("--layout", options->layout, "what each worker of this layout holds: local, 2A1F, …");
  app.add_flag("--tensors", options->tensors, "list every tensor");
  app.add_flag("--json", options->json, "as one JSON object");
  return [options] { return run(*options); };
}

}  // namespace tandem
