// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/engine_options.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>

#include "base/format.h"
#include "cli/command.h"
#include "cli/end_signals.h"
#include "cli/progress_bar.h"
#include "engine/auto_layout.h"
#include "engine/settings/gpu_places.h"
#include "engine/settings/machine.h"
#include "roles/deployment_engine.h"
#include "roles/front.h"

namespace tandem {

namespace {

void say(const std::string& text) {
  std::fputs(text.c_str(), stderr);
}

// CLI11 takes an empty text for a good value.
std::string layout_fault(const std::string& text) {
  if (text == "auto") return {};
  try {
    parse_layout(text);
  } catch (const Error& error) {
    return error.message();
  }
  return {};
}

// A GPU has no cores to set apart for two workers: what crosses between them would cross the bus for nothing.
std::string layout_text(const EngineOptions& options) {
  if (!options.layout.empty()) return options.layout;
  return options.config.backend == "cuda" ? "local" : "1A1F";
}

Layout chosen_layout(const Checkpoint& checkpoint, const EngineOptions& options, const EngineConfig& config) {
  if (const std::string text = layout_text(options); text != "auto") return parse_layout(text);
  const LayoutChoice choice =
      choose_layout(checkpoint, config, candidate_layouts(usable_cores()), [&](const LayoutTrial& trial) {
        if (!options.quiet)
          say(format("trying    {:<6} prefill {:.0f}, decode {:.0f} tokens/s\n", to_string(trial.layout),
                     trial.prefill_tokens_per_second, trial.decode_tokens_per_second));
      });
  if (!options.quiet) say(format("fastest   {}\n", to_string(choice.layout)));
  return choice.layout;
}

// Found out now, not after an hour of work.
void check_writable(const std::string& path) {
  if (std::ofstream file(path, std::ios::app); !file)
    throw Error(ErrorCode::kInvalidArgument, format("cannot write the trace to {} (--trace)", path));
}

}  // namespace

void declare_engine_options(CLI::App& app, EngineOptions& o) {
  EngineConfig& c = o.config;
  const std::string group = "Engine (0: fitted to model and machine, and printed)";
  app.add_option("-m,--model", o.model, "a GGUF file, or a folder with config.json and safetensors");
  const auto option = [&](const char* name, auto& value, const char* text) {
    return app.add_option(name, value, text)->capture_default_str()->group(group);
  };
  option("--layout", o.layout,
         "auto, local, or xAyF: x attention and y FFN workers apart; xAyxwF: y groups of w FFN workers, each with a "
         "part of "
         "the width of its group's experts; unless given 1A1F, on cuda local")
      ->check(layout_fault);
  option("--micro-batches", c.micro_batches, "that travel between the workers of a layout, 1 to 4");
  option("--device,--backend", c.backend,
         "cpu, cuda (NVIDIA GPUs: H100, H200) or reference; with a deployment, what sees pictures in front of it");
  const auto gpus = [&](const char* name, std::vector<std::int32_t>& list, const char* text) {
    app.add_option(name, list, text)->delimiter(',')->allow_extra_args(false)->check(CLI::Range(0, 1023))->group(group);
  };
  gpus("--gpu-a", c.attention_gpus,
       "on cuda, GPUs of the attention workers, which take them in turn: 0, or 0,1,2; unless given 0");
  gpus("--gpu-f", c.ffn_gpus, "the same of the FFN workers; unless given those of --gpu-a");
  app.add_option("--gpu-vision", c.vision_gpu,
                 "on cuda, the GPU that sees pictures; unless given the first attention worker's")
      ->check(CLI::Range(0, 1023))
      ->group(group);
  option("--cpu-variant", c.variant, "instruction set of the cpu backend; --version lists them");
  option("--threads", c.threads, "over all workers; with a deployment, those that see pictures in front of it");
  option("--kv-dtype", o.kv_dtype, "of cached keys and values; fp8 (cuda, reference): E4M3, scaled head by head")
      ->check(CLI::IsMember({"bf16", "f32", "fp8"}));
  option("--activations", o.activations,
         "inputs of layers: kept in f32, of FP8 weights rounded to FP8, of quantised ones (on cpu) to int8")
      ->check(CLI::IsMember({"f32", "fp8", "int8"}));
  option("--kv-tokens", c.kv_tokens, "cache of each attention worker");
  option("--context-tokens-max", c.context_tokens_max, "prompt and answer of one request");
  option("--sequences-max", c.sequences_max, "requests that run at once");
  option("--rows-per-step-max", c.rows_per_step_max, "tokens computed in one step");
  option("--prefill-chunk", c.prefill_chunk, "tokens of one prompt in one step");
  option("--queue-max", c.queue_max, "requests that wait");
  option("--resend-after-ms", c.resend_after_ms,
         "a hand-over without an answer for so long is sent again; a decoding step by flags in which a worker "
         "waits for so long is given again");
  option("--resends-max", c.resends_max, "then the requests of its micro-batch fail");
  option("--picture-cache-mib", c.picture_cache_mib, "of pictures' rows, kept for prompts that bring them again");
  option("--pictures-pending-mib", c.pictures_pending_mib, "of decoded pictures that wait to be seen");
  option("--trace", o.trace_file, "file to write a Chrome/Perfetto trace to");
  option("--deployment", o.deployment.file,
         "a deployment file: its workers, which run as processes, compute; their settings are in the file");
  declare_link_options(app, o.deployment, group);
  app.add_flag("!--no-run-ahead", c.run_ahead,
               "on a GPU, wait for the tokens of a decoding step before the next is given")
      ->group(group);
  app.add_flag("!--no-prefix-cache", c.prefix_cache, "compute every prompt from its start")->group(group);
  app.add_flag("!--no-vision", c.vision, "load a model that sees pictures without its eyes")->group(group);
  app.add_flag("--check", c.checked, "validate every operator before it runs")->group(group);
  app.add_flag("-q,--quiet", o.quiet, "say nothing but errors on standard error")->group(group);
}

std::string model_path(const EngineOptions& options) {
  if (options.model.empty() && !options.deployment.file.empty()) return read_deployment(options.deployment).model;
  if (options.model.empty()) throw UsageError("--model is required");
  return options.model;
}

EngineConfig engine_config(const EngineOptions& options) {
  EngineConfig config = options.config;
  config.kv_dtype = kv_dtype_named(options.kv_dtype);
  config.activations = activations_named(options.activations);
  if (const std::string text = layout_text(options); text != "auto") config.layout = parse_layout(text);
  return config;
}

RunningEngine::RunningEngine(const Checkpoint& checkpoint, const EngineOptions& options)
    : trace_file_(options.trace_file) {
  const RealClock clock;
  const Nanoseconds begin = clock.now();
  if (options.deployment.file.empty())
    start_workers(checkpoint, options);
  else
    connect(checkpoint, options);
  load_seconds_ = static_cast<double>(clock.now() - begin) * 1e-9;
  const char* what = deployment_ ? "connected" : "loaded";
  if (!options.quiet) say(describe(*engine_) + format("{:<9} in {:.2f} s\n", what, load_seconds_));
}

void RunningEngine::start_workers(const Checkpoint& checkpoint, const EngineOptions& options) {
  EngineConfig config = engine_config(options);
  if (!trace_file_.empty()) {
    check_writable(trace_file_);
    trace_ = std::make_unique<Trace>();
  }
  config.layout = chosen_layout(checkpoint, options, config);
  if (layout_text(options) == "auto") fit_gpus(config);
  config.trace = trace_.get();
  ProgressBar bar("loading", options.quiet);
  engine_ = Engine::start(checkpoint, config, [&](const LoadProgress& p) { bar.show(p.bytes_done, p.bytes_total); });
}

void RunningEngine::connect(const Checkpoint& checkpoint, const EngineOptions& options) {
  if (!options.layout.empty()) throw UsageError("--layout and --deployment: the file says how workers are laid out");
  if (!options.config.attention_gpus.empty() || !options.config.ffn_gpus.empty())
    throw UsageError("--gpu-a, --gpu-f and --deployment: the file says which devices workers have");
  if (!trace_file_.empty()) throw UsageError("--trace and --deployment: what workers do elsewhere is not recorded");
  deployment_ = std::make_unique<Deployment>(read_deployment(options.deployment));
  FrontOptions front_options{.insecure = options.deployment.insecure, .give_up = end_signal_waits};
  if (!options.quiet) front_options.say = [](const std::string& line) { say(line + "\n"); };
  std::unique_ptr<Front> front = Front::connect(*deployment_, identity_of(*deployment_, checkpoint), front_options);
  EngineConfig config = engine_config(*deployment_, 0);
  config.kv_tokens = front->kv_tokens();
  config.threads = options.config.threads > 0 ? options.config.threads : front_threads(*deployment_);
  config.vision = options.config.vision;
  config.vision_backend = options.config.backend;
  config.vision_gpu = options.config.vision_gpu;
  config.picture_cache_mib = options.config.picture_cache_mib;
  config.pictures_pending_mib = options.config.pictures_pending_mib;
  ProgressBar bar("loading", options.quiet);
  engine_ = Engine::over(std::move(front), resolve_limits(std::move(config), read_config(checkpoint)), checkpoint,
                         [&](const LoadProgress& p) { bar.show(p.bytes_done, p.bytes_total); });
}

void RunningEngine::finish() {
  engine_->stop();
  if (!trace_) return;
  if (const Status written = trace_->write(trace_file_); !written) throw written.error();
}

std::string describe(const Engine& engine) {
  const EngineConfig& c = engine.config();
  const ModelConfig& m = engine.model();
  std::string text;
  text += format("model     {}, {} layers, {} wide, weights {} MiB\n", m.architecture, m.layers, m.hidden,
                 engine.weight_bytes() >> 20);
  text += format("layout    {}, {} micro-batch{}, {} per worker\n", to_string(c.layout), c.micro_batches,
                 c.micro_batches == 1 ? "" : "es", engine.describe_backend());
  if (c.backend == "cuda" && !engine.workers().formation()) text += format("gpus      {}\n", describe_gpus(c));
  if (const std::string how = engine.workers().describe_hand_overs(); !how.empty())
    text += format("hand-over {}\n", how);
  if (engine.vision_worker()) text += format("vision    {}\n", engine.vision_worker()->describe_backend());
  if (m.block_fp8) text += format("fp8       weights in blocks of 128, activations {}\n", name(c.activations));
  if (c.activations == Activations::kInt8) text += "int8      inputs of quantised weights rounded in blocks of 32\n";
  text += format("kv        {} tokens of {}{}, {} MiB, prefix cache {}\n", c.kv_tokens, name(c.kv_dtype),
                 c.layout.attention_workers > 1 ? " on each attention worker" : "", engine.kv_bytes() >> 20,
                 c.prefix_cache ? "on" : "off");
  text += format("limits    context {}, sequences {}, rows per step {}, prefill chunk {}, queue {}\n",
                 c.context_tokens_max, c.sequences_max, c.rows_per_step_max, c.prefill_chunk, c.queue_max);
  return text;
}

}  // namespace tandem
