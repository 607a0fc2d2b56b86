// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/stage_bench.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/bench/gpu_state.h"
#include "ops/cuda/device.h"
#include "ops/cuda/peer/devices.h"
#include "ops/cuda/peer/recorded_work.h"
#include "ops/cuda/peer/step_clock.h"
#include "ops/cuda/peer/stream_flag.h"
#include "slice/attention_side.h"
#include "slice/ffn_side.h"
#include "slice/side_memory.h"
#include "slice/slice.h"

namespace tandem {

namespace {

using cuda::Stream;
using cuda::WorkStream;

constexpr std::int32_t kMicroBatches = 3;
constexpr std::int32_t kAttentionLayers = 8, kFfnLayers = 16;  // so many that no weight is found in the L2 cache
// The first four layers and the last are dense. Layer 0 of the attention side begins a step.
constexpr std::int32_t kDenseFrom = 1, kRoutedFrom = 4;
constexpr double kSampleUs = 600;     // of a kernel's calls, at least
constexpr double kShareOfStage = .1;  // that a kernel's further calls should take
constexpr int kRepeatsMax = 20, kExtraMax = 4;

using Operators = std::vector<SideOperator>;
// Of a micro-batch's layer.
using OperatorsOf = std::function<Operators(std::int32_t layer, std::int32_t micro_batch)>;
// Further calls of a kernel in a stage.
struct Extra {
  std::string kernel;
  int calls = 0;

  // Of operators those that are the kernel.
  void run(const Operators& operators, Stream stream) const {
    for (const SideOperator& op : operators)
      if (op.name == kernel)
        for (int i = 0; i < calls; ++i) op.run(stream);
  }
};
using Stage = std::function<void(const Extra&)>;

double median(std::vector<double> times) {
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::ranges::nth_element(times, middle);
  return *middle;
}

// A GPU that is kept at work by a stage, and what is timed in between.
class WarmGpu {
 public:
  // heats: stages between two things that are timed.
  WarmGpu(const StageBenchOptions& options, int heats) : options_(options), heats_(heats) {}

  Stream work() const { return work_.get(); }

  // stage enqueues some milliseconds from and to work().
  void keep_warm_with(Stage stage) {
    stage_ = std::move(stage);
    heat_ = cuda::RecordedWork(work(), [this] { stage_({}); });
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(options_.warm_up_seconds);
    do {
      for (int i = 0; i < 10; ++i) heat_.launch(work());
      cuda::synchronise(work());
    } while (std::chrono::steady_clock::now() < until);
  }

  // Of these calls one after the other, each.
  double in_turn(const Operators& calls, StageTime& t) const {
    const auto enqueue = [&](int repeats) {
      return cuda::RecordedWork(work(), [&] {
        for (int i = 0; i < repeats; ++i)
          for (const SideOperator& call : calls) call.run(work());
      });
    };
    const double once = sampled(enqueue(1), 1, t).work();
    const int repeats = std::clamp(static_cast<int>(std::ceil(kSampleUs / once)), 1, kRepeatsMax);
    return sampled(enqueue(repeats), options_.samples, t).work() / repeats / static_cast<double>(calls.size());
  }

  // What one call of the kernel, of which the stage has so many, adds to the stage; about: what it takes alone.
  double added(const std::string& kernel, std::int32_t calls, double about, StageTime& t) const {
    const double wanted = kShareOfStage * stage_us_ / (about * calls);
    const int extra = std::clamp(static_cast<int>(std::ceil(wanted)), 1, kExtraMax);
    const cuda::RecordedWork longer(work(), [&] { stage_({kernel, extra}); });
    const Samples samples = sampled(longer, options_.samples + options_.samples / 2, t);
    return std::max(0.0, samples.more_than_heat()) / (calls * extra);
  }

  // The whole stage once; before any kernel is timed.
  double stage(StageTime& t) {
    stage_us_ = sampled(heat_, options_.samples, t).work();
    return stage_us_;
  }

 private:
  struct Samples {
    std::vector<double> works, more;  // microseconds; more: than one heat, with which it shares the clock

    double work() const { return median(works); }
    double more_than_heat() const { return median(more); }
  };

  Samples sampled(const cuda::RecordedWork& calls, int count, StageTime& t) const {
    cuda::StepClock clock;
    clock.mark(work());
    for (int sample = 0; sample < count; ++sample) {
      for (int i = 0; i < heats_; ++i) heat_.launch(work());
      clock.mark(work());
      calls.launch(work());
      clock.mark(work());
      if (sample == count / 2) {
        const cuda::GpuState state = cuda::read_gpu_state();  // while all that is at work
        t.clock_mhz = state.clock_mhz;
        t.watts = state.watts;
      }
    }
    clock.wait_for(clock.marks() - 1);
    const std::vector<double> times = clock.microseconds();
    Samples samples;
    for (std::size_t i = 0; i + 1 < times.size(); i += 2) {
      samples.works.push_back(times[i + 1]);
      samples.more.push_back(times[i + 1] - times[i] / heats_);
    }
    return samples;
  }

  const StageBenchOptions& options_;
  int heats_;
  WorkStream work_;
  Stage stage_;
  cuda::RecordedWork heat_;
  double stage_us_ = 0;
};

// A flag is raised and waited for: what stands between the layers of either side.
SideOperator flag_operator(const cuda::DeviceMemory& word) {
  return {"flag", [at = word.as<std::uint32_t>()](Stream stream) {
            cuda::raise_flag(at, SliceOptions{}.flags, stream);
            cuda::wait_and_lower_flag(at, SliceOptions{}.flags, stream);
          }};
}

// All calls of a kernel over layers, micro-batch after micro-batch: who reads the same weights again comes late.
Operators calls_of(const std::string& kernel, std::int32_t first, std::int32_t end, const OperatorsOf& operators_of) {
  Operators calls;
  for (std::int32_t m = 0; m < kMicroBatches; ++m)
    for (std::int32_t layer = first; layer < end; ++layer)
      for (SideOperator& op : operators_of(layer, m))
        if (kernel.empty() || op.name == kernel) calls.push_back(std::move(op));
  return calls;
}

std::vector<std::string> names_of(const Operators& operators) {
  std::vector<std::string> names;
  for (const SideOperator& op : operators) names.emplace_back(op.name);
  return names;
}

using OnTime = std::function<void(const StageTime&)>;

// On the attention GPU each micro-batch has a stream.
class AttentionStage {
 public:
  AttentionStage(const StageBenchOptions& options, std::int32_t rows, std::int32_t context)
      : side_(
            {.model = {.layers = kAttentionLayers}, .rows = rows, .micro_batches = kMicroBatches, .context = context}),
        gpu_(options, 2),
        shape_{.stage = "attention", .rows = rows, .context = context} {
    for (std::int32_t m = 0; m < kMicroBatches; ++m) flags_.push_back(zeros(sizeof(std::uint32_t)));
    gpu_.keep_warm_with([this](const Extra& extra) { enqueue(extra); });
  }

  void time_all(const OnTime& on_time) {
    time_layer(on_time);
    for (const std::string& kernel : names_of(operators(kRoutedFrom, 0)))
      time(kernel, kernel == "router" ? kRoutedFrom : kDenseFrom, kEnd, on_time);
    time("seal", kDenseFrom, kRoutedFrom, on_time);
    for (const std::string& kernel : names_of(side_.head_operators(0))) time_head(kernel, on_time);
  }
  void time_attention(const OnTime& on_time) {
    time_layer(on_time);
    time("mfa-decode-fp8", kDenseFrom, kEnd, on_time);
  }

 private:
  static constexpr std::int32_t kEnd = kAttentionLayers - 1, kLayers = kEnd - kDenseFrom;

  Operators operators(std::int32_t layer, std::int32_t m) const {
    Operators all = side_.layer_operators(layer, m);
    all.push_back(flag_operator(flags_[static_cast<std::size_t>(m)]));
    return all;
  }

  // Of the same kind, and read neither just before nor just after: its weights are not in the cache.
  static std::int32_t other_layer(std::int32_t layer) {
    const std::int32_t first = layer < kRoutedFrom ? kDenseFrom : kRoutedFrom,
                       end = layer < kRoutedFrom ? kRoutedFrom : kEnd;
    return first + (layer - first + 1) % (end - first);
  }

  // Micro-batches are at different layers, as they are after a while. Of the head only what is asked for.
  void enqueue(const Extra& extra) const {
    for (const WorkStream& lane : lanes_) cuda::fork_stream(gpu_.work(), lane.get());
    for (std::int32_t m = 0; m < kMicroBatches; ++m) {
      const Stream lane = m == 0 ? gpu_.work() : lanes_[static_cast<std::size_t>(m - 1)].get();
      for (std::int32_t i = 0; i < kLayers; ++i) {
        const std::int32_t layer = kDenseFrom + (i + m * kLayers / kMicroBatches) % kLayers;
        for (const SideOperator& op : operators(layer, m)) {
          op.run(lane);
          if (op.name == extra.kernel) extra.run(operators(other_layer(layer), m), lane);
        }
      }
      extra.run(side_.head_operators(m), lane);
    }
    for (const WorkStream& lane : lanes_) cuda::join_stream(gpu_.work(), lane.get());
  }

  void time_layer(const OnTime& on_time) {
    StageTime t = shape_;
    t.kernel = "layer";
    t.microseconds_beside = gpu_.stage(t) / (kLayers * kMicroBatches);
    const Operators all = calls_of("", kRoutedFrom, kEnd, [&](auto layer, auto m) { return operators(layer, m); });
    t.microseconds = gpu_.in_turn(all, t) * static_cast<double>(operators(kRoutedFrom, 0).size());
    on_time(t);
  }

  void time(const std::string& kernel, std::int32_t first, std::int32_t end, const OnTime& on_time) {
    StageTime t = shape_;
    t.kernel = kernel;
    const Operators calls = calls_of(kernel, first, end, [&](auto layer, auto m) { return operators(layer, m); });
    t.microseconds = gpu_.in_turn(calls, t);
    t.microseconds_beside = gpu_.added(kernel, static_cast<std::int32_t>(calls.size()), t.microseconds, t);
    on_time(t);
  }

  void time_head(const std::string& kernel, const OnTime& on_time) {
    StageTime t = shape_;
    t.stage = "head";
    t.kernel = kernel;
    const Operators calls = calls_of(kernel, 0, 1, [&](auto, auto m) { return side_.head_operators(m); });
    t.microseconds = gpu_.in_turn(calls, t);
    t.microseconds_beside = gpu_.added(kernel, kMicroBatches, t.microseconds, t);
    on_time(t);
  }

  AttentionSide side_;
  WarmGpu gpu_;
  StageTime shape_;
  std::array<WorkStream, kMicroBatches - 1> lanes_;
  std::vector<cuda::DeviceMemory> flags_;
};

// On the FFN GPU micro-batches are multiplied in turn, while rows of others are brought together and added up.
class FfnStage {
 public:
  FfnStage(const StageBenchOptions& options, std::int32_t servers, std::int32_t rows)
      : deployment_{.attention_servers = kAttentionServers, .ffn_servers = servers},
        side_({.model = {.layers = kFfnLayers},
               .deployment = deployment_,
               .rows = rows / deployment_.attention_gpus(),
               .micro_batches = kMicroBatches}),
        gpu_(options, 1),
        shape_{.stage = "ffn", .rows = rows, .gpus = deployment_.ffn_gpus()},
        flags_(kMicroBatches) {
    for (cuda::DeviceMemory& flag : flags_) flag = zeros(sizeof(std::uint32_t));
    give_exchange_memory();
    // Who has which rows is known from the first time on.
    for (const SideOperator& op : calls_of("", 0, kEnd, [&](auto layer, auto m) { return operators(layer, m); }))
      op.run(gpu_.work());
    cuda::synchronise(gpu_.work());
    gpu_.keep_warm_with([this](const Extra& extra) { enqueue(extra); });
  }

  static constexpr std::int32_t kAttentionServers = 2;

  void time_all(const OnTime& on_time) {
    StageTime t = shape_;
    t.kernel = "layer";
    t.microseconds_beside = gpu_.stage(t) / ((kEnd - kRoutedFrom) * kMicroBatches);
    const Operators all = calls_of("", kRoutedFrom, kEnd, [&](auto layer, auto m) { return operators(layer, m); });
    t.microseconds = gpu_.in_turn(all, t) * static_cast<double>(operators(kRoutedFrom, 0).size());
    on_time(t);
    for (const std::string& kernel : names_of(operators(kRoutedFrom, 0))) time(kernel, kRoutedFrom, kEnd, on_time);
    for (const std::string& kernel : names_of(side_.layer_operators(0, 0))) time(kernel, 0, kRoutedFrom, on_time);
  }

 private:
  static constexpr std::int32_t kEnd = kFfnLayers - 1;

  Operators operators(std::int32_t layer, std::int32_t m) const {
    Operators all = side_.layer_operators(layer, m);
    if (layer >= kRoutedFrom) all.push_back(flag_operator(flags_[static_cast<std::size_t>(m)]));
    return all;
  }

  void give_exchange_memory() {
    const SliceLoad& load = side_.load();
    out_ = cuda::DeviceMemory(static_cast<std::size_t>(std::max(load.exchange_out_bytes, load.exchange_back_bytes)));
    rows_in_ = random_tiles(1, 1, load.exchange_out_bytes, 5);
    results_in_ = random_bf16(load.exchange_back_bytes / 2, 1, 6);
    side_.exchange_with(
        {.out = out_.as<std::byte>(), .rows_in = rows_in_.as<std::byte>(), .results_in = results_in_.as<std::byte>()});
  }

  enum class Place : std::uint8_t { kBefore, kUp, kDown, kAfter };
  static Place place_of(const std::string& kernel) {
    if (kernel.ends_with("gate-up")) return Place::kUp;
    if (kernel.ends_with("down")) return Place::kDown;
    return kernel.ends_with("combine") || kernel == "exchange-results" ? Place::kAfter : Place::kBefore;
  }

  // What stands in one place of a layer, and further calls with weights that are not in the cache: of another layer, or
  // of a dense one, whose kernels have other names.
  void enqueue(Place place, std::int32_t layer, std::int32_t m, const Extra& extra, Stream stream) const {
    for (const SideOperator& op : operators(layer, m))
      if (place_of(op.name) == place) op.run(stream);
    if (place_of(extra.kernel) != place) return;
    const std::int32_t routed = kEnd - kRoutedFrom;
    extra.run(operators(kRoutedFrom + (layer - kRoutedFrom + routed / 2) % routed, m), stream);
    extra.run(side_.layer_operators(layer % kRoutedFrom, m), stream);
  }

  void enqueue(const Extra& extra) const {
    const Stream work = gpu_.work(), down = down_.get(), in = in_.get(), out = after_.get();
    const std::vector<cuda::StreamPoint> returned(kMicroBatches);
    cuda::fork_stream(work, in);
    for (std::int32_t layer = kRoutedFrom; layer < kEnd; ++layer)
      for (std::int32_t m = 0; m < kMicroBatches; ++m) {
        const cuda::StreamPoint& back = returned[static_cast<std::size_t>(m)];
        if (layer > kRoutedFrom) back.wait_for(in);
        enqueue(Place::kBefore, layer, m, extra, in);
        cuda::fork_stream(in, work);
        enqueue(Place::kUp, layer, m, extra, work);
        cuda::fork_stream(work, down);
        enqueue(Place::kDown, layer, m, extra, down);
        cuda::join_stream(work, down);
        cuda::fork_stream(down, out);
        enqueue(Place::kAfter, layer, m, extra, out);
        back.reach(out);
      }
    cuda::join_stream(work, out);
  }

  void time(const std::string& kernel, std::int32_t first, std::int32_t end, const OnTime& on_time) {
    StageTime t = shape_;
    t.kernel = kernel;
    t.microseconds =
        gpu_.in_turn(calls_of(kernel, first, end, [&](auto layer, auto m) { return operators(layer, m); }), t);
    t.microseconds_beside = gpu_.added(kernel, (kEnd - kRoutedFrom) * kMicroBatches, t.microseconds, t);
    on_time(t);
  }

  SliceDeployment deployment_;
  FfnSide side_;
  WarmGpu gpu_;
  StageTime shape_;
  WorkStream down_, in_{WorkStream::Priority::kUrgent}, after_{WorkStream::Priority::kUrgent};
  std::vector<cuda::DeviceMemory> flags_;
  cuda::DeviceMemory out_, rows_in_, results_in_;
};

}  // namespace

void bench_stages(const StageBenchOptions& options, const OnTime& on_time) {
  if (const std::string missing = cuda::why_unusable(cuda::look_at_device()); !missing.empty())
    throw Error(ErrorCode::kUnavailable, missing);
  constexpr std::int32_t kStep = FfnStage::kAttentionServers * SliceDeployment::kGpusPerServer;
  for (const std::int32_t rows : options.ffn_rows)
    if (rows % kStep != 0)
      throw Error(ErrorCode::kInvalidArgument, format("{} rows of the FFN, have to be a multiple of {}", rows, kStep));
  for (const std::int32_t context : options.contexts)
    for (const std::int32_t rows : options.attention_rows) {
      if (!options.attention || std::int64_t{rows} * context > options.tokens_max) continue;
      AttentionStage stage(options, rows, context);
      context == options.contexts.front() ? stage.time_all(on_time) : stage.time_attention(on_time);
    }
  if (!options.ffn) return;
  for (const std::int32_t servers : options.ffn_servers)
    for (const std::int32_t rows : options.ffn_rows) FfnStage(options, servers, rows).time_all(on_time);
}

}  // namespace tandem
