// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem inspect: what is in a checkpoint, without reading a weight.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "base/format.h"
#include "cli/command.h"
#include "model/model.h"

namespace tandem {

namespace {

struct Options {
  std::string path;
  bool tensors = false;
  bool json = false;
};

struct Count {
  std::int64_t tensors = 0, elements = 0, bytes = 0;
};

struct Findings {
  std::map<std::string, Count> by_type;
  Count total;
  std::optional<ModelConfig> config;  // none: the architecture is not supported
  std::map<Part, PartSize> parts;     // empty: the tensors are not
  std::string reason;                 // why it is not supported; empty when it is
};

Findings look_at(const Checkpoint& checkpoint) {
  Findings f;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    for (Count* count : {&f.by_type[tensor.type_name], &f.total}) {
      ++count->tensors;
      count->elements += tensor.shape.elements();
      count->bytes += static_cast<std::int64_t>(tensor.bytes);
    }
  }
  try {
    f.config = read_config(checkpoint);
    f.parts = measure_parts(checkpoint);
  } catch (const Error& error) {
    f.reason = error.message();
  }
  return f;
}

std::int64_t kv_token_bytes(const ModelConfig& config, DType dtype) {
  return static_cast<std::int64_t>(config.kv_spec(dtype, 0).token_bytes());
}

std::string mebibytes(std::int64_t bytes) {
  return format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

std::string millions(std::int64_t count) {
  return count >= 10'000'000 ? format("{:.1f} M", static_cast<double>(count) * 1e-6)
                             : format("{:.2f} M", static_cast<double>(count) * 1e-6);
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
  text += format("kv per token  {} bytes in bf16, {} in f32\n", kv_token_bytes(c, DType::kBF16),
                 kv_token_bytes(c, DType::kF32));
  if (c.window.tokens > 0)
    text += format("window        {} layers keep the last {} tokens, {} bytes each in bf16\n",
                   c.window_kv_spec(DType::kBF16, 0).layers, c.window.tokens,
                   c.window_kv_spec(DType::kBF16, 0).token_bytes());
  return text;
}

std::string text_of(const Checkpoint& checkpoint, const Findings& f) {
  std::string text;
  text += format("path          {}\n", checkpoint.path());
  text += format("format        {}\n", name(checkpoint.format()));
  text += format("architecture  {}\n", f.config ? f.config->architecture : "not known here");
  text += format("supported     {}\n", f.reason.empty() ? "yes" : "no: " + f.reason);
  if (f.config) text += config_text(*f.config);
  text += format("weights       {} parameters, {}\n", millions(f.total.elements), mebibytes(f.total.bytes));
  if (!f.parts.empty()) text += format("\n{:<16} {:>12} {:>14}\n", "part", "parameters", "memory");
  for (const auto& [part, size] : f.parts)
    text += format("{:<16} {:>12} {:>14}\n", name(part), millions(size.parameters), mebibytes(size.bytes));
  text += format("\n{:<16} {:>12} {:>14} {:>9}\n", "type", "elements", "memory", "tensors");
  for (const auto& [type, count] : f.by_type)
    text +=
        format("{:<16} {:>12} {:>14} {:>9}\n", type, millions(count.elements), mebibytes(count.bytes), count.tensors);
  return text;
}

std::string shape_text(const TensorInfo& tensor) {
  std::vector<std::int64_t> dims;
  for (int i = 0; i < tensor.shape.rank; ++i) dims.push_back(tensor.shape[i]);
  return format("[{}]", join(dims, ", "));
}

OrderedJson json_of(const Checkpoint& checkpoint, const Findings& f, bool tensors) {
  OrderedJson json;
  json["path"] = checkpoint.path();
  json["format"] = name(checkpoint.format());
  json["supported"] = f.reason.empty();
  if (!f.reason.empty()) json["reason"] = f.reason;
  if (f.config) {
    json["architecture"] = f.config->architecture;
    json["layers"] = f.config->layers;
    json["hidden"] = f.config->hidden;
    json["vocab"] = f.config->vocab;
    json["context_tokens_max"] = f.config->context_tokens_max;
    json["kv_token_bytes"] = {{"bf16", kv_token_bytes(*f.config, DType::kBF16)},
                              {"f32", kv_token_bytes(*f.config, DType::kF32)}};
  }
  json["parameters"] = f.total.elements;
  json["weight_bytes"] = f.total.bytes;
  for (const auto& [part, size] : f.parts)
    json["parts"][std::string(name(part))] = {{"parameters", size.parameters}, {"bytes", size.bytes}};
  for (const auto& [type, count] : f.by_type)
    json["types"][type] = {{"tensors", count.tensors}, {"elements", count.elements}, {"bytes", count.bytes}};
  if (tensors)
    for (const TensorInfo& tensor : checkpoint.tensors())
      json["tensors"].push_back(
          {{"name", tensor.name}, {"type", tensor.type_name}, {"shape", shape_text(tensor)}, {"bytes", tensor.bytes}});
  return json;
}

int run(const Options& options) {
  const std::unique_ptr<Checkpoint> checkpoint = Checkpoint::open(options.path);
  const Findings findings = look_at(*checkpoint);
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
  app.add_option("path", options->path, "a GGUF file, or a folder with config.json and safetensors")->required();
  app.add_flag("--tensors", options->tensors, "list every tensor");
  app.add_flag("--json", options->json, "as one JSON object");
  return [options] { return run(*options); };
}

}  // namespace tandem
