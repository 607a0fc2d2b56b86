// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem bench: how fast a whole model runs here, beside what the machine could do at best.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/format.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/engine_options.h"
#include "engine/auto_layout.h"
#include "engine/settings/gpu_places.h"
#include "engine/settings/machine.h"
#include "engine/speed.h"
#include "kv/kv_space.h"
#include "ops/cpu/machine_limits.h"
#include "ops/cuda/bench/gpu_limits.h"

namespace tandem {

namespace {

constexpr std::string_view kWaiting = "local+wait";  // stands among layouts for local with --no-run-ahead

struct Options {
  EngineOptions engine;
  std::vector<std::string> layouts{"local", "1A1F"};
  std::vector<std::int64_t> batches{1, 4, 16, 64};
  std::int64_t prompt_tokens = 128;
  std::int32_t new_tokens = 48, rounds = 1;
  bool json = false;
};

// One line of the result.
struct Measurement {
  std::string layout, phase;
  std::int64_t batch;
  Speed speed;
};

void print_measurement(const Measurement& m, const MachineLimits& limits, bool json) {
  const double bytes = static_cast<double>(m.speed.work.bytes()) / m.speed.seconds;
  const double flops = static_cast<double>(m.speed.work.flops) / m.speed.seconds;
  if (json) {
    const OrderedJson line{
        {"layout", m.layout},         {"phase", m.phase},
        {"batch", m.batch},           {"tokens", m.speed.tokens},
        {"seconds", m.speed.seconds}, {"tokens_per_second", m.speed.tokens_per_second()},
        {"bytes_per_second", bytes},  {"fraction_of_bandwidth", bytes / limits.read_bytes_per_second},
        {"flops_per_second", flops},  {"fraction_of_flops", flops / limits.flops_per_second}};
    std::fputs((line.dump() + "\n").c_str(), stdout);
  } else {
    std::fputs(format("{:<11} {:<8} batch {:>3} {:>10.1f} tokens/s {:>8.2f} GB/s {:>4.0f} % of bandwidth {:>8.1f} "
                      "GFLOP/s {:>4.0f} %\n",
                      m.layout, m.phase, m.batch, m.speed.tokens_per_second(), bytes * 1e-9,
                      100 * bytes / limits.read_bytes_per_second, flops * 1e-9, 100 * flops / limits.flops_per_second)
                   .c_str(),
               stdout);
  }
  std::fflush(stdout);
}

void bench_layout(const Checkpoint& checkpoint, const Options& options, const std::string& layout,
                  const MachineLimits& limits) {
  WorkMeter meter;
  EngineOptions engine_options = options.engine;
  EngineConfig& c = engine_options.config;
  const bool waiting = layout == kWaiting;
  c.run_ahead &= !waiting;
  engine_options.layout = waiting ? "local" : layout;
  if (layout != "auto") {
    c.layout = parse_layout(engine_options.layout);
    fit_gpus(c);
  }
  const std::int64_t batch_max = std::ranges::max(options.batches);
  const std::int64_t context = options.prompt_tokens + options.new_tokens + 1;
  c.sequences_max = std::max(c.sequences_max, batch_max);
  if (c.context_tokens_max == 0) c.context_tokens_max = context;
  // Each sequence ends in a block that it does not fill.
  if (c.kv_tokens == 0) c.kv_tokens = batch_max * (context + kBlockTokens);
  meter.connect(c);
  RunningEngine engine(checkpoint, engine_options);
  const std::string shown = waiting ? layout : to_string(engine->config().layout);
  measure_decode(*engine, random_prompts(engine->model(), 1, options.prompt_tokens, 0), options.new_tokens);  // warm
  for (const std::int64_t batch : options.batches) {
    const Prompts prompts =
        random_prompts(engine->model(), batch, options.prompt_tokens, static_cast<std::uint64_t>(batch));
    print_measurement({shown, "prefill", batch, measure_prefill(*engine, prompts, &meter)}, limits, options.json);
    print_measurement({shown, "decode", batch, measure_decode(*engine, prompts, options.new_tokens, &meter)}, limits,
                      options.json);
  }
  engine.finish();
}

// Of what the model will run on; says them.
MachineLimits measure_limits(const EngineOptions& options) {
  const EngineConfig& config = options.config;
  MachineLimits limits{};
  std::string who, arithmetic;
  if (config.backend == "cuda") {
    const cuda::GpuLimits gpu = cuda::measure_gpu_limits(gpu_of(config, 0));
    limits = {.read_bytes_per_second = gpu.read_bytes_per_second, .flops_per_second = gpu.bf16_flops_per_second};
    who = gpu.gpu + " can";
    arithmetic = " in bf16";
  } else {
    const std::int32_t threads = config.threads > 0 ? config.threads : usable_cores();
    limits = measure_machine_limits({.threads = threads, .variant = config.variant});
    who = format("{} threads", threads);
  }
  if (!options.quiet)
    std::fputs(format("machine   {} read {:.1f} GB/s and do {:.0f} GFLOP/s{}\n", who,
                      limits.read_bytes_per_second * 1e-9, limits.flops_per_second * 1e-9, arithmetic)
                   .c_str(),
               stderr);
  return limits;
}

int run_model(const Options& options) {
  const std::string& backend = options.engine.config.backend;
  if (backend != "cuda" && std::ranges::find(options.layouts, kWaiting) != options.layouts.end())
    throw Error(ErrorCode::kInvalidArgument,
                format("{} is for a GPU, not for {} (--device, --layout)", kWaiting, backend));
  const std::unique_ptr<Checkpoint> checkpoint = Checkpoint::open(model_path(options.engine));
  read_config(*checkpoint);  // what is not supported is said before the machine is measured
  const MachineLimits limits = measure_limits(options.engine);
  for (std::int32_t round = 0; round < options.rounds; ++round)
    for (const std::string& layout : options.layouts) bench_layout(*checkpoint, options, layout, limits);
  return 0;
}

int run_layout(const EngineOptions& options) {
  const std::unique_ptr<Checkpoint> checkpoint = Checkpoint::open(model_path(options));
  const LayoutChoice choice = choose_layout(
      *checkpoint, engine_config(options), candidate_layouts(usable_cores()), [](const LayoutTrial& trial) {
        std::fputs(format("{:<7} prefill {:>8.1f} tokens/s, decode {:>8.1f} tokens/s, together {:.3f} s\n",
                          to_string(trial.layout), trial.prefill_tokens_per_second, trial.decode_tokens_per_second,
                          trial.seconds)
                       .c_str(),
                   stdout);
        std::fflush(stdout);
      });
  std::fputs(format("fastest {}\n", to_string(choice.layout)).c_str(), stdout);
  return 0;
}

}  // namespace

Action declare_bench_model(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  declare_engine_options(app, options->engine);
  app.remove_option(app.get_option("--layout"));
  app.add_option("--layout", options->layouts, format("layouts to measure; {}: local with --no-run-ahead", kWaiting))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--batch", options->batches, "sequences at once")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--prompt-tokens", options->prompt_tokens, "of each sequence")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--new-tokens", options->new_tokens, "of each sequence")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  app.add_option("--rounds", options->rounds, "in each of which every layout has its turn")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_flag("--json", options->json, "one JSON object a line");
  return [options] { return run_model(*options); };
}

Action declare_bench_layout(CLI::App& app) {
  const auto options = std::make_shared<EngineOptions>();
  declare_engine_options(app, *options);
  app.remove_option(app.get_option("--layout"));
  return [options] { return run_layout(*options); };
}

}  // namespace tandem
