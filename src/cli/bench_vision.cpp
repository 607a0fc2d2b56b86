// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem bench vision: how fast a model's vision tower encodes pictures, alone; nothing else of the model is loaded.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "base/format.h"
#include "base/json.h"
#include "base/rng.h"
#include "cli/command.h"
#include "cli/operator_times.h"
#include "engine/settings/gpu_places.h"
#include "engine/settings/machine.h"
#include "engine/worker_parts.h"
#include "image/crop_plan.h"
#include "model/step3_vision.h"
#include "ops/cpu/machine_limits.h"
#include "ops/cuda/bench/gpu_limits.h"
#include "ops/forwarding.h"

namespace tandem {

namespace {

struct Options {
  std::string model;
  EngineConfig config;
  int samples = 5;
  bool operators = false, json = false;
};

// Waits for every operator while it is told to, so that each is timed by itself.
class WaitingBackend final : public ForwardingBackend {
 public:
  WaitingBackend(std::unique_ptr<Backend> inner, const bool& waits)
      : ForwardingBackend(std::move(inner)), waits_(waits) {}
  void run(const Operator& op) override {
    ForwardingBackend::run(op);
    if (waits_) synchronise();
  }

 private:
  const bool& waits_;
};

// A tower, and memory for a view of it.
class Bench {
 public:
  Bench(const Checkpoint& checkpoint, const EngineConfig& config, std::int32_t threads)
      : backend_(
            make_traced_backend(std::make_unique<WaitingBackend>(make_vision_backend(config, threads), one_by_one_),
                                clock_, [this](const OperatorTrace& trace) { times_.add(trace); })),
        tower_(load_vision(checkpoint, *backend_)),
        arena_(*backend_, tower_->scratch_bytes()) {}

  const Step3Vision& tower() const { return *tower_; }
  std::string describe() const { return backend_->describe(); }

  // From pixels of the host to rows of the host; seconds.
  double encode(std::int32_t side) {
    const std::int64_t pixels = std::int64_t{side} * side, rows = tower_->rows_of(side);
    Rng rng(1);
    std::vector<float> rgb(static_cast<std::size_t>(3 * pixels)),
        found(static_cast<std::size_t>(rows * tower_->hidden()));
    for (float& value : rgb) value = static_cast<float>(2 * rng.uniform() - 1);
    Arena::Scope scope(arena_);
    const Tensor in = arena_.f32(pixels, 3), out = arena_.f32(rows, tower_->hidden());
    const Nanoseconds begin = clock_.now();
    backend_->copy(in.data, rgb.data(), rgb.size() * sizeof(float));
    tower_->encode({*backend_, arena_}, in, out);
    backend_->copy(found.data(), out.data, found.size() * sizeof(float));
    backend_->synchronise();
    return static_cast<double>(clock_.now() - begin) * 1e-9;
  }

  double median_seconds(std::int32_t side, int samples) {
    std::vector<double> seconds;
    for (int i = 0; i < samples; ++i) seconds.push_back(encode(side));
    std::ranges::nth_element(seconds, seconds.begin() + samples / 2);
    return seconds[static_cast<std::size_t>(samples / 2)];
  }

  // Of one view, the most expensive first.
  std::vector<OperatorTime> operators(std::int32_t side) {
    times_.take();
    one_by_one_ = true;
    encode(side);
    one_by_one_ = false;
    return times_.take();
  }

 private:
  RealClock clock_;
  OperatorTimes times_;
  bool one_by_one_ = false;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Step3Vision> tower_;
  Arena arena_;
};

void print(const std::string& line) {
  std::fputs((line + "\n").c_str(), stdout);
  std::fflush(stdout);
}

void print_view(const Step3Vision& tower, std::int32_t side, double seconds, double flops, double limit, bool json) {
  const std::int64_t patches = tower.stream_rows(side) - Step3Vision::kClassRows;
  if (json)
    return print(to_line(OrderedJson{{"side", side},
                                     {"patches", patches},
                                     {"rows", tower.rows_of(side)},
                                     {"seconds", seconds},
                                     {"flops", flops},
                                     {"fraction_of_flops", flops / seconds / limit}}));
  print(format("{:<4} x {:<4} {:>5} patches, {:>3} rows {:>9.1f} ms {:>8.2f} views/s {:>7.2f} TFLOP/s {:>4.0f} %", side,
               side, patches, tower.rows_of(side), seconds * 1e3, 1 / seconds, flops / seconds * 1e-12,
               100 * flops / seconds / limit));
}

void print_operator(std::int32_t side, const OperatorTime& t, double seconds_of_all, double limit, bool json) {
  const double rate = t.flops / t.seconds;
  if (json) {
    OrderedJson line{{"side", side}};
    add_operator(line, t, seconds_of_all);
    line["fraction_of_flops"] = rate / limit;
    return print(to_line(line));
  }
  print(format("  {:<16} {:<26} {:>4} x {:>9.1f} us {:>4.0f} % {:>7.2f} TB/s {:>8.2f} TFLOP/s {:>4.0f} %", t.name,
               t.shape, t.calls, t.seconds * 1e6, 100 * t.seconds_total / seconds_of_all, t.bytes / t.seconds * 1e-12,
               rate * 1e-12, 100 * rate / limit));
}

// FLOPs per second that the machine can do: of a GPU in BF16, of a processor in f32.
double measure_limit(const EngineConfig& config, std::int32_t threads) {
  if (config.backend == "cuda") return cuda::measure_gpu_limits(vision_gpu(config)).bf16_flops_per_second;
  return measure_machine_limits({.threads = threads, .variant = config.variant}).flops_per_second;
}

int run(const Options& options) {
  const std::unique_ptr<Checkpoint> checkpoint = Checkpoint::open(options.model);
  const std::int32_t threads = options.config.threads > 0 ? options.config.threads : usable_cores();
  const double limit = measure_limit(options.config, threads);
  Bench bench(*checkpoint, options.config, threads);
  const VisionConfig& c = bench.tower().config();
  std::fputs(format("tower     {} layers, {} wide, {} heads, MLP {} wide, {} MiB\nmachine   {}: {:.2f} TFLOP/s in {}\n",
                    c.layers, c.hidden, c.heads, c.mlp_width, bench.tower().weight_bytes() >> 20, bench.describe(),
                    limit * 1e-12, options.config.backend == "cuda" ? "BF16" : "f32")
                 .c_str(),
             stderr);
  for (const std::int32_t side : {c.image_side, kCropSide}) {
    bench.encode(side);  // to warm up
    const std::vector<OperatorTime> operators = bench.operators(side);
    double flops = 0, seconds = 0;
    for (const OperatorTime& t : operators) {
      flops += t.flops * static_cast<double>(t.calls);
      seconds += t.seconds_total;
    }
    print_view(bench.tower(), side, bench.median_seconds(side, options.samples), flops, limit, options.json);
    if (!options.operators) continue;
    for (const OperatorTime& t : operators) print_operator(side, t, seconds, limit, options.json);
  }
  return 0;
}

}  // namespace

Action declare_bench_vision(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  EngineConfig& config = options->config;
  app.add_option("-m,--model", options->model, "a folder with config.json and safetensors of a model that sees")
      ->required();
  app.add_option("--device,--backend", config.backend, "what the tower runs on")
      ->check(CLI::IsMember({"cuda", "cpu", "reference"}))
      ->capture_default_str();
  app.add_option("--gpu-vision", config.vision_gpu, "of cuda: which GPU; unless given 0")->check(CLI::Range(0, 1023));
  app.add_option("--threads", config.threads, "of cpu; 0: one for each core")->check(CLI::Range(0, 1024));
  app.add_option("--cpu-variant", config.variant, "instruction set of cpu; --version lists them")
      ->capture_default_str();
  app.add_option("--samples", options->samples, "the median of so many views")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_flag("--operators", options->operators, "each operator by itself, too");
  app.add_flag("--json", options->json, "one JSON object a line");
  return [options] { return run(*options); };
}

}  // namespace tandem
