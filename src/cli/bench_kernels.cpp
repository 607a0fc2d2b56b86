// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem bench kernels: single kernels of a GPU at the shapes that models have, those of a deployment's stages under
// lasting load, or the operators of a model on the processor, each beside what the machine could do at best.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "base/format.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/engine_options.h"
#include "cli/operator_times.h"
#include "engine/settings/machine.h"
#include "engine/speed.h"
#include "kv/kv_space.h"
#include "ops/cpu/machine_limits.h"
#include "ops/cuda/bench/kernel_bench.h"
#include "slice/stage_bench.h"

namespace tandem {

namespace {

struct Options {
  cuda::KernelBenchOptions bench;
  std::string device = "cuda";
  bool json = false, stages = false;
  StageBenchOptions stage;
  EngineOptions engine{.layout = "local", .quiet = true};  // of the processor
  std::vector<std::int64_t> batches{1, 16, 64};
  std::int64_t prompt_tokens = 128;
  std::int32_t new_tokens = 16;
};

void print_limits(const cuda::GpuLimits& limits, bool json) {
  if (json) {
    const OrderedJson line{{"gpu", limits.gpu},
                           {"clock_mhz", limits.clock_mhz},
                           {"read_bytes_per_second", limits.read_bytes_per_second},
                           {"fp8_flops_per_second", limits.fp8_flops_per_second},
                           {"bf16_flops_per_second", limits.bf16_flops_per_second}};
    std::fputs((line.dump() + "\n").c_str(), stdout);
  } else {
    std::fputs(format("{}, up to {} MHz: reads {:.2f} TB/s, does {:.0f} TFLOP/s in FP8 and {:.0f} in BF16\n",
                      limits.gpu, limits.clock_mhz, limits.read_bytes_per_second * 1e-12,
                      limits.fp8_flops_per_second * 1e-12, limits.bf16_flops_per_second * 1e-12)
                   .c_str(),
               stdout);
  }
  std::fflush(stdout);
}

void print_row(const cuda::KernelMeasurement& m, const cuda::GpuLimits& limits, bool json) {
  const double bytes = m.bytes / m.microseconds * 1e6, flops = m.flops / m.microseconds * 1e6;
  if (json) {
    const OrderedJson line{{"kernel", m.kernel},
                           {"shape", m.shape},
                           {"microseconds", m.microseconds},
                           {"bytes", m.bytes},
                           {"flops", m.flops},
                           {"fraction_of_bandwidth", bytes / limits.read_bytes_per_second},
                           {"fraction_of_flops", flops / m.flops_per_second_limit},
                           {"relative_error", m.error},
                           {"remark", m.remark}};
    std::fputs((line.dump() + "\n").c_str(), stdout);
  } else {
    std::fputs(format("{:<28} {:<14} {:>8.1f} us {:>6.2f} TB/s {:>4.0f} % of bandwidth {:>7.0f} TFLOP/s {:>3.0f} %  "
                      "error {:.1e}  {}\n",
                      m.kernel, m.shape, m.microseconds, bytes * 1e-12, 100 * bytes / limits.read_bytes_per_second,
                      flops * 1e-12, 100 * flops / m.flops_per_second_limit, m.error, m.remark)
                   .c_str(),
               stdout);
  }
  std::fflush(stdout);
}

void print_stage_time(const StageTime& t, bool json) {
  if (json) {
    OrderedJson line{{"model", "step3"}, {"stage", t.stage}, {"kernel", t.kernel}, {"rows", t.rows}};
    if (t.context > 0) line["context"] = t.context;
    if (t.gpus > 0) line["gpus"] = t.gpus;
    line["microseconds"] = t.microseconds;
    line["microseconds_beside"] = t.microseconds_beside;
    line["clock_mhz"] = t.clock_mhz;
    line["watts"] = t.watts;
    std::fputs((line.dump() + "\n").c_str(), stdout);
  } else {
    const std::string shape = t.gpus > 0      ? format("{} over {} GPUs", t.rows, t.gpus)
                              : t.context > 0 ? format("{} x {}", t.rows, t.context)
                                              : std::string();
    std::fputs(format("{:<10} {:<18} {:<18} {:>8.2f} us, beside others {:>8.2f}  {} MHz, {:.0f} W\n", t.stage, t.kernel,
                      shape, t.microseconds, t.microseconds_beside, t.clock_mhz, t.watts)
                   .c_str(),
               stdout);
  }
  std::fflush(stdout);
}

int run_stages(const Options& options) {
  print_limits(cuda::measure_gpu_limits(), options.json);
  StageBenchOptions stage = options.stage;
  stage.samples = std::max(3, options.bench.samples / 3);
  const std::string& only = options.bench.pattern;
  if (!only.empty() && only != "attention" && only != "ffn")
    throw UsageError(format("--only '{}': of --stages attention or ffn", only));
  stage.attention = only != "ffn";
  stage.ffn = only != "attention";
  bench_stages(stage, [&](const StageTime& t) { print_stage_time(t, options.json); });
  return 0;
}

int run_kernels(const Options& options) {
  cuda::GpuLimits limits;
  cuda::bench_kernels(options.bench,
                      {.on_limits =
                           [&](const cuda::GpuLimits& measured) {
                             limits = measured;
                             print_limits(limits, options.json);
                           },
                       .on_row = [&](const cuda::KernelMeasurement& row) { print_row(row, limits, options.json); }});
  return 0;
}

void print_operator(const OperatorTime& t, const std::string& phase, std::int64_t batch, double seconds_of_all,
                    const MachineLimits& limits, bool json) {
  const double bytes = t.bytes / t.seconds, flops = t.flops / t.seconds;
  if (json) {
    OrderedJson line{{"phase", phase}, {"batch", batch}};
    add_operator(line, t, seconds_of_all);
    line["fraction_of_bandwidth"] = bytes / limits.read_bytes_per_second;
    line["fraction_of_flops"] = flops / limits.flops_per_second;
    std::fputs((line.dump() + "\n").c_str(), stdout);
  } else {
    std::fputs(format("{:<8} {:>3} {:<20} {:<24} {:>6} x {:>9.1f} us {:>4.0f} % {:>7.2f} GB/s {:>4.0f} % of bandwidth "
                      "{:>7.1f} GFLOP/s {:>4.0f} %\n",
                      phase, batch, t.name, t.shape, t.calls, t.seconds * 1e6, 100 * t.seconds_total / seconds_of_all,
                      bytes * 1e-9, 100 * bytes / limits.read_bytes_per_second, flops * 1e-9,
                      100 * flops / limits.flops_per_second)
                   .c_str(),
               stdout);
  }
  std::fflush(stdout);
}

// What was timed since the last call; of decoding the steps of the whole batch, not those on the way there.
void print_operators(OperatorTimes& times, const std::string& phase, std::int64_t batch, const Options& options,
                     const MachineLimits& limits) {
  std::vector<OperatorTime> taken = times.take();
  if (phase == "decode") std::erase_if(taken, [&](const OperatorTime& t) { return t.rows != batch; });
  double seconds = 0;
  for (const OperatorTime& t : taken) seconds += t.seconds_total;
  for (const OperatorTime& t : taken)
    if ((t.name + " " + t.shape).find(options.bench.pattern) != std::string::npos)
      print_operator(t, phase, batch, seconds, limits, options.json);
}

// The operators of a whole model, timed one by one while it works: their shapes are those that matter, and each finds
// in the caches what the one before has left there.
int run_operators(Options& options) {
  const std::unique_ptr<Checkpoint> checkpoint = Checkpoint::open(model_path(options.engine));
  EngineConfig& config = options.engine.config;
  const RealClock clock;
  OperatorTimes times;
  config.backend = "cpu";
  config.sequences_max = std::ranges::max(options.batches);
  config.context_tokens_max = options.prompt_tokens + options.new_tokens + 1;
  config.kv_tokens = config.sequences_max * (config.context_tokens_max + kBlockTokens);
  config.wrap_backend = [&](std::unique_ptr<Backend> backend) {
    return make_traced_backend(std::move(backend), clock, [&](const OperatorTrace& trace) { times.add(trace); });
  };
  const std::int32_t threads = config.threads > 0 ? config.threads : usable_cores();
  const MachineLimits limits = measure_machine_limits({.threads = threads, .variant = config.variant});
  std::fputs(format("machine   {} threads read {:.1f} GB/s and do {:.0f} GFLOP/s\n", threads,
                    limits.read_bytes_per_second * 1e-9, limits.flops_per_second * 1e-9)
                 .c_str(),
             stderr);
  RunningEngine engine(*checkpoint, options.engine);
  const ModelConfig& model = engine->model();
  measure_decode(*engine, random_prompts(model, 1, options.prompt_tokens, 0), options.new_tokens);  // warm
  times.take();
  for (const std::int64_t batch : options.batches) {
    const Prompts prompts = random_prompts(model, batch, options.prompt_tokens, static_cast<std::uint64_t>(batch));
    measure_prefill(*engine, prompts);
    print_operators(times, "prefill", batch, options, limits);
    measure_decode(*engine, prompts, options.new_tokens);
    print_operators(times, "decode", batch, options, limits);
  }
  engine.finish();
  return 0;
}

void declare_stages(CLI::App& app, Options& options) {
  const char* stages = "Of --stages";
  app.add_flag("--stages", options.stages,
               "of cuda: every kernel of Step-3's attention and FFN GPUs over a ladder of batches and contexts, under "
               "lasting load: what tandem plan deploy --kernels-a and --kernels-f reckon with");
  const auto list = [&](const char* name, std::vector<std::int32_t>& values, int least, int most, const char* what) {
    app.add_option(name, values, what)
        ->delimiter(',')
        ->check(CLI::Range(least, most))
        ->capture_default_str()
        ->group(stages);
  };
  list("--attention-rows", options.stage.attention_rows, 1, 1024, "rows of a micro-batch on an attention GPU");
  list("--contexts", options.stage.contexts, 64, 65536, "with the first all kernels, then attention alone");
  list("--ffn-servers", options.stage.ffn_servers, 1, 6, "servers of eight GPUs that have the experts");
  list("--ffn-rows", options.stage.ffn_rows, 16, 16384, "rows of a micro-batch of all attention GPUs");
}

}  // namespace

Action declare_bench_kernels(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  EngineConfig& config = options->engine.config;
  app.add_option("--device,--backend", options->device, "whose kernels")
      ->check(CLI::IsMember({"cuda", "cpu"}))
      ->capture_default_str();
  app.add_option("--only", options->bench.pattern,
                 "rows with this in their name or shape; of --stages attention or ffn");
  app.add_option("--samples", options->bench.samples, "of cuda: the median of so many")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_flag("--json", options->json, "one JSON object a line");
  declare_stages(app, *options);
  const char* cpu = "Of cpu";
  app.add_option("-m,--model", options->engine.model, "whose operators: a GGUF file, or a folder")->group(cpu);
  app.add_option("--batch", options->batches, "sequences at once")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096))
      ->capture_default_str()
      ->group(cpu);
  app.add_option("--prompt-tokens", options->prompt_tokens, "of each sequence")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str()
      ->group(cpu);
  app.add_option("--threads", config.threads, "0: one for each core")->check(CLI::Range(0, 1024))->group(cpu);
  app.add_option("--activations", options->engine.activations, "inputs of layers: f32, or of quantised weights int8")
      ->check(CLI::IsMember({"f32", "int8"}))
      ->capture_default_str()
      ->group(cpu);
  app.add_option("--cpu-variant", config.variant, "instruction set; --version lists them")
      ->capture_default_str()
      ->group(cpu);
  return [options] {
    if (options->device == "cpu") return run_operators(*options);
    return options->stages ? run_stages(*options) : run_kernels(*options);
  };
}

}  // namespace tandem
