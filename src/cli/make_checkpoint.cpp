// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem make-checkpoint: a synthetic checkpoint of any size, for tests of deployments and for measurements.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/clock.h"
#include "base/error.h"
#include "base/format.h"
#include "cli/command.h"
#include "cli/progress_bar.h"
#include "engine/settings/machine.h"
#include "model/config.h"
#include "synthetic/checkpoint_maker.h"
#include "synthetic/published_config.h"

namespace tandem {

namespace {

struct Options {
  std::string folder;
  std::string like = "step3";
  Resizing resizing;
  std::optional<double> scale, gigabytes;
  std::string precision;              // empty: as the published model
  std::vector<std::string> settings;  // key=value
  double shard_gigabytes = static_cast<double>(kShardBytes) * 1e-9;
  std::uint64_t seed = 1;
  std::int32_t threads = 0;
  bool dry_run = false;
  bool quiet = false;
};

// "moe_top_k=2", "moe_layers_enum=1,2": what is no JSON is a text.
std::pair<std::string, OrderedJson> setting_of(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == 0 || equals == std::string::npos)
    throw UsageError(format("--set {}: give KEY=VALUE, a key of config.json", text));
  const std::string value = text.substr(equals + 1);
  OrderedJson json = OrderedJson::parse(value, nullptr, false);
  if (json.is_discarded()) json = value;
  return {text.substr(0, equals), std::move(json)};
}

OrderedJson config_of(const Options& options) {
  if (options.scale && options.gigabytes) throw UsageError("give one of --scale and --gigabytes");
  Resizing resizing = options.resizing;
  if (!options.precision.empty()) resizing.fp8 = options.precision == "fp8";
  for (const std::string& setting : options.settings) resizing.settings.push_back(setting_of(setting));
  const OrderedJson published = find_config(options.like);
  if (options.gigabytes)
    return resize_to_bytes(published, resizing, static_cast<std::uint64_t>(*options.gigabytes * 1e9));
  resizing.scale = options.scale.value_or(1);
  return resize(published, resizing);
}

std::string text_of(const CheckpointPlan& plan) {
  const ModelConfig config = read_config(*Checkpoint::describe(Json(plan.config), "the model"));
  std::int64_t parameters = 0;
  for (const ListedTensor& tensor : plan.tensors)
    if (!WeightReader::is_scale(tensor.name)) parameters += tensor.shape.elements();
  return format("{}, {} layers, {} wide{}{}: {:.3f} billion parameters, {} tensors, {:.3f} GB in {} file{}\n",
                config.architecture, config.layers, config.hidden,
                config.experts > 0 ? format(", {} experts", config.experts) : "", config.block_fp8 ? ", fp8" : "",
                static_cast<double>(parameters) * 1e-9, plan.tensors.size(), static_cast<double>(plan.bytes) * 1e-9,
                plan.shards.size(), plan.shards.size() == 1 ? "" : "s");
}

int run(const Options& options) {
  const CheckpointPlan plan =
      plan_checkpoint(config_of(options), static_cast<std::uint64_t>(options.shard_gigabytes * 1e9));
  if (!options.quiet) std::fputs(text_of(plan).c_str(), stdout);
  if (options.dry_run) return 0;
  if (options.folder.empty()) throw UsageError("a folder to write is required (or --dry-run)");
  const RealClock clock;
  const Nanoseconds begin = clock.now();
  WritingOptions writing{options.seed, options.threads > 0 ? options.threads : usable_cores(), {}};
  {
    ProgressBar bar("writing", options.quiet);
    std::int64_t done = 0;
    writing.listener = [&](std::int64_t bytes) { bar.show(done += bytes, static_cast<std::int64_t>(plan.bytes)); };
    write_checkpoint(plan, options.folder, writing);
  }
  const double seconds = static_cast<double>(clock.now() - begin) * 1e-9;
  if (!options.quiet)
    std::fputs(format("wrote {} in {:.2f} s, {:.2f} GB/s\n", options.folder, seconds,
                      static_cast<double>(plan.bytes) * 1e-9 / seconds)
                   .c_str(),
               stdout);
  return 0;
}

std::string like_text() {
  std::string text;
  for (const PublishedConfig& config : published_configs())
    text += format("{}{} ({})", text.empty() ? "" : ", ", config.name, config.model);
  return text + "; or a config.json, or a folder with one";
}

}  // namespace

Action declare_make_checkpoint(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  Options& o = *options;
  app.add_option("folder", o.folder, "to be written; must not be there, or be empty");
  app.add_option("--like", o.like, like_text())->capture_default_str();
  app.add_option("--scale", o.scale, "of widths, layers and heads, each; vocabulary and number of experts stay")
      ->check(CLI::Range(1e-3, 8.0));
  app.add_option("--gigabytes", o.gigabytes, "of weights, at most: the scale is chosen for it")
      ->check(CLI::Range(1e-6, 1e5));
  app.add_option("--layers", o.resizing.layers, "in place of what the scale makes of them")->check(CLI::Range(1, 1024));
  app.add_option("--hidden", o.resizing.hidden, "width of the residual stream")->check(CLI::Range(1, 1 << 22));
  app.add_option("--experts", o.resizing.experts, "of a layer")->check(CLI::Range(1, 4096));
  app.add_option("--vocab", o.resizing.vocab, "tokens")->check(CLI::Range(1, 1 << 24));
  app.add_option("--precision", o.precision, "of linear layers, unless as published")
      ->check(CLI::IsMember({"bf16", "fp8"}));
  app.add_option("--set", o.settings, "KEY=VALUE for config.json; may be repeated")->allow_extra_args(false);
  app.add_option("--shard-gigabytes", o.shard_gigabytes, "of one file, at most")
      ->check(CLI::Range(1e-6, 1e5))
      ->capture_default_str();
  app.add_option("--seed", o.seed, "of the weights")->capture_default_str();
  app.add_option("--threads", o.threads, "0: as many as cores")->check(CLI::Range(0, 1024))->capture_default_str();
  app.add_flag("--dry-run", o.dry_run, "say what it would be, write nothing");
  app.add_flag("-q,--quiet", o.quiet, "say nothing but errors");
  return [options] { return run(*options); };
}

}  // namespace tandem
