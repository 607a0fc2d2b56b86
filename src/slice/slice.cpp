// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/slice.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/device.h"
#include "ops/cuda/peer/devices.h"
#include "ops/cuda/peer/recorded_work.h"
#include "ops/cuda/peer/step_clock.h"
#include "ops/cuda/peer/stream_flag.h"
#include "ops/cuda/split/decode_step.h"
#include "slice/attention_side.h"
#include "slice/ffn_side.h"
#include "slice/row_search.h"
#include "slice/side_memory.h"

namespace tandem {

namespace {

using cuda::DeviceMemory;
using cuda::OnDevice;
using cuda::Stream;

constexpr int kWarmUpStepsMin = 6, kWarmUpStepsMax = 100, kAloneStepsMax = 60, kStepsAhead = 8;
constexpr std::chrono::seconds kPatience{20};  // for one step

// What each side has on its GPU besides its memory.
struct Lanes {
  std::vector<DeviceMemory> flags;  // of each micro-batch, raised by the other side

  std::uint32_t* flag(std::int32_t m) const { return flags[static_cast<std::size_t>(m)].as<std::uint32_t>(); }
};

// On the attention GPU every micro-batch has a stream of its own: where one leaves multiprocessors idle (small kernels,
// the last blocks of a product), another goes on.
struct AttentionLanes : Lanes {
  struct Lane {
    cuda::WorkStream work;
    cuda::RecordedWork step;
  };
  std::vector<Lane> lanes;
};

// On the FFN GPU micro-batches are multiplied in turn, which also keeps them in step. What comes in and goes out has
// streams of its own, so that links and sums work while products do.
struct FfnLanes : Lanes {
  cuda::WorkStream work, in{cuda::WorkStream::Priority::kUrgent}, in_beside, out{cuda::WorkStream::Priority::kUrgent},
      out_beside;
  cuda::RecordedWork step;
  DeviceMemory elsewhere;  // for what goes to servers that are not there
};

StepTimes step_times(std::vector<double> all) {
  StepTimes times{.all = std::move(all)};
  std::vector<double> sorted = times.all;
  std::ranges::sort(sorted);
  if (sorted.empty()) return times;
  times.median = sorted[sorted.size() / 2];
  times.p99 = sorted[std::min(sorted.size() - 1, sorted.size() * 99 / 100)];
  return times;
}

class Slice {
 public:
  explicit Slice(const SliceOptions& options);

  StepTimes measure(SliceSides sides, int steps);
  std::uint32_t mismatches() const;
  std::int32_t expert_rows_max() const { return ffn_ ? ffn_->expert_rows_max() : 0; }
  SideReport attention_report(const cuda::GpuLimits& limits) const;
  SideReport ffn_report(const cuda::GpuLimits& limits) const;

 private:
  AttentionSideOptions attention_options() const;
  FfnSideOptions ffn_options() const;
  void make_flags(Lanes& lanes) const;
  void give_exchange_memory();
  void restart(SliceSides sides);
  void record_attention(std::int32_t m, bool alone);
  void record_ffn(bool alone);
  void wait_for(const cuda::StepClock& clock, std::size_t mark) const;
  void free_waiters(const cuda::StepClock& clock) const;

  SliceOptions options_;
  SliceLoad load_;
  std::unique_ptr<AttentionSide> attention_;
  std::unique_ptr<FfnSide> ffn_;
  std::unique_ptr<AttentionLanes> a_;
  std::unique_ptr<FfnLanes> f_;
  // On the attention GPU, if there is one.
  DeviceMemory exchange_out_, exchange_rows_, exchange_results_, for_other_servers_;
};

Slice::Slice(const SliceOptions& options) : options_(options), load_(load_of(options.deployment, options.rows)) {
  if (options.sides == SliceSides::kBoth) cuda::connect_devices(options.attention_gpu, options.ffn_gpu);
  if (options.sides != SliceSides::kFfn) {
    const OnDevice on(options.attention_gpu);
    attention_ = std::make_unique<AttentionSide>(attention_options());
    a_ = std::make_unique<AttentionLanes>();
    a_->lanes.resize(static_cast<std::size_t>(options.micro_batches));
    make_flags(*a_);
  }
  if (options.sides == SliceSides::kAttention) return;
  {
    const OnDevice on(options.sides == SliceSides::kBoth ? options.attention_gpu : options.ffn_gpu);
    give_exchange_memory();
  }
  const OnDevice on(options.ffn_gpu);
  ffn_ = std::make_unique<FfnSide>(ffn_options());
  f_ = std::make_unique<FfnLanes>();
  f_->elsewhere = DeviceMemory(for_other_servers_.bytes());
  make_flags(*f_);
  ffn_->exchange_with({.out = exchange_out_.as<std::byte>(),
                       .rows_in = exchange_rows_.as<std::byte>(),
                       .results_in = exchange_results_.as<std::byte>()});
}

AttentionSideOptions Slice::attention_options() const {
  return {.model = options_.model,
          .rows = options_.rows,
          .micro_batches = options_.micro_batches,
          .context = options_.context,
          .ffn_servers = options_.deployment.ffn_servers,
          .return_blocks = load_.rail_blocks};
}

FfnSideOptions Slice::ffn_options() const {
  return {.model = options_.model,
          .deployment = options_.deployment,
          .rows = options_.rows,
          .micro_batches = options_.micro_batches,
          .zipf_exponent = options_.zipf_exponent};
}

void Slice::make_flags(Lanes& lanes) const {
  for (std::int32_t m = 0; m < options_.micro_batches; ++m) lanes.flags.push_back(zeros(sizeof(std::uint32_t)));
}

void Slice::give_exchange_memory() {
  exchange_out_ = DeviceMemory(static_cast<std::size_t>(std::max(load_.exchange_out_bytes, load_.exchange_back_bytes)));
  const HandOverLayout layout{.rows = options_.rows};
  for_other_servers_ = zeros(layout.bytes() * static_cast<std::size_t>(options_.deployment.ffn_servers - 1));
  exchange_rows_ = random_tiles(1, 1, std::max<std::int64_t>(load_.exchange_out_bytes, 1), 5);
  exchange_results_ = random_bf16(std::max<std::int64_t>(load_.exchange_back_bytes / 2, 1), 1, 6);
  cuda::synchronise();
}

// The attention side's first step begins with a return of nothing. A side alone returns to itself, so that
// there, too, as many micro-batches are on their way as it has.
void Slice::restart(SliceSides sides) {
  if (sides != SliceSides::kFfn) {
    const OnDevice on(options_.attention_gpu);
    attention_->restart();
    for (std::int32_t m = 0; m < options_.micro_batches; ++m) cuda::set_word(a_->flag(m), 1, nullptr);
    for (std::int32_t m = 0; m < options_.micro_batches; ++m) record_attention(m, sides == SliceSides::kAttention);
    cuda::synchronise();
  }
  if (sides == SliceSides::kAttention) return;
  const OnDevice on(options_.ffn_gpu);
  ffn_->restart();
  const std::uint32_t raised = sides == SliceSides::kFfn ? 1 : 0;
  for (std::int32_t m = 0; m < options_.micro_batches; ++m) cuda::set_word(f_->flag(m), raised, nullptr);
  record_ffn(sides == SliceSides::kFfn);
  cuda::synchronise();
}

// The last kernels of a layer write into the other GPU's memory.
void Slice::record_attention(std::int32_t m, bool alone) {
  AttentionLanes::Lane& lane = a_->lanes[static_cast<std::size_t>(m)];
  const Stream work = lane.work.get();
  attention_->send_to(m, alone ? nullptr : ffn_->hand_over(m));
  lane.step = cuda::RecordedWork(work, [&] {
    for (std::int32_t layer = 0; layer < options_.model.layers; ++layer) {
      cuda::wait_and_lower_flag(a_->flag(m), work);
      attention_->run_layer(layer, m, work);
      cuda::raise_flag(alone ? a_->flag(m) : f_->flag(m), work);
    }
  });
}

// What the attention GPU sends to the other FFN servers is fetched from its memory beside the exchange.
//
// A graph's branches may share a hardware queue, in any order that the graph allows. So it must say that a wait comes
// after the return without which nobody will raise its flag.
void Slice::record_ffn(bool alone) {
  const Stream work = f_->work.get(), in = f_->in.get(), beside = f_->in_beside.get(), out = f_->out.get();
  const std::size_t bytes = ffn_->layout().bytes() * static_cast<std::size_t>(options_.deployment.ffn_servers - 1);
  for (std::int32_t m = 0; m < options_.micro_batches; ++m)
    ffn_->return_to(m, alone ? nullptr : attention_->returned(m));
  const std::vector<cuda::StreamPoint> returned(static_cast<std::size_t>(options_.micro_batches));
  f_->step = cuda::RecordedWork(work, [&] {
    cuda::fork_stream(work, in);
    for (std::int32_t layer = 0; layer < options_.model.layers; ++layer)
      for (std::int32_t m = 0; m < options_.micro_batches; ++m) {
        if (layer > 0) returned[static_cast<std::size_t>(m)].wait_for(in);
        cuda::wait_and_lower_flag(f_->flag(m), in);
        ffn_->gather(layer, m, in, beside);
        cuda::fork_stream(in, beside);
        cuda::copy_between_devices(f_->elsewhere.as<std::byte>(), for_other_servers_.as<std::byte>(), bytes, beside);
        cuda::fork_stream(in, work);
        ffn_->multiply(layer, m, work);
        cuda::fork_stream(work, out);
        ffn_->combine(layer, m, out, f_->out_beside.get());
        cuda::raise_flag(alone ? f_->flag(m) : a_->flag(m), out);
        returned[static_cast<std::size_t>(m)].reach(out);
      }
    cuda::join_stream(work, out);
    cuda::join_stream(work, beside);
    for (std::int32_t m = 0; m < options_.micro_batches; ++m) ffn_->end_step(m, work);
  });
}

// A side that waits for ever is a bug or a lost GPU: told, not endured.
void Slice::wait_for(const cuda::StepClock& clock, std::size_t mark) const {
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (!clock.has_passed(mark)) {
    if (std::chrono::steady_clock::now() > until) {
      free_waiters(clock);
      throw Error(ErrorCode::kInternal, format("step {} of a slice did not end within {} s", mark, kPatience.count()));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

// Raises every flag until what was launched has run to its end, on whatever is in memory: the steps are lost, the GPUs
// are not.
void Slice::free_waiters(const cuda::StepClock& clock) const {
  const auto until = std::chrono::steady_clock::now() + kPatience;
  const auto raise = [this](int gpu, const Lanes* lanes) {
    if (lanes == nullptr) return;
    const OnDevice on(gpu);
    for (std::int32_t m = 0; m < options_.micro_batches; ++m) cuda::set_word(lanes->flag(m), 1, nullptr);
    cuda::synchronise();
  };
  while (!clock.has_passed(clock.marks() - 1)) {
    TANDEM_CHECK(std::chrono::steady_clock::now() < until, "a GPU does not come back");
    raise(options_.attention_gpu, a_.get());
    raise(options_.ffn_gpu, f_.get());
  }
}

StepTimes Slice::measure(SliceSides sides, int steps) {
  restart(sides);
  // The clocks come down to what the power limit allows before anything is measured.
  const int warm_up = std::clamp(steps / 3, kWarmUpStepsMin, kWarmUpStepsMax);
  const bool has_attention = sides != SliceSides::kFfn;
  const OnDevice on(has_attention ? options_.attention_gpu : options_.ffn_gpu);
  cuda::StepClock clock;
  for (std::size_t step = 0; step < static_cast<std::size_t>(steps + warm_up); ++step) {
    if (sides != SliceSides::kAttention) {
      const OnDevice there(options_.ffn_gpu);
      f_->step.launch(f_->work.get());
    }
    if (has_attention)
      for (const AttentionLanes::Lane& lane : a_->lanes) lane.step.launch(lane.work.get());
    // Micro-batches are in step, so the last one's times are everybody's.
    clock.mark(has_attention ? a_->lanes.back().work.get() : f_->work.get());
    if (step >= kStepsAhead) wait_for(clock, step - kStepsAhead);
  }
  wait_for(clock, clock.marks() - 1);
  cuda::synchronise_device();
  if (sides == SliceSides::kBoth) {
    const OnDevice there(options_.ffn_gpu);
    cuda::synchronise_device();
  }
  if (has_attention) attention_->check_tokens();
  const std::vector<double> times = clock.microseconds();
  return step_times({times.begin() + warm_up - 1, times.end()});
}

std::uint32_t Slice::mismatches() const {
  return (attention_ ? attention_->mismatches() : 0) + (ffn_ ? ffn_->mismatches() : 0);
}

double floor_us(double bytes, double flops, const cuda::GpuLimits& limits) {
  return 1e6 * std::max(bytes / limits.read_bytes_per_second, flops / limits.fp8_flops_per_second);
}

SideReport Slice::attention_report(const cuda::GpuLimits& limits) const {
  if (!attention_) return {};
  return {.layer_floor = floor_us(attention_->layer_bytes(), attention_->layer_flops(), limits),
          .gigabytes = 1e-9 * static_cast<double>(AttentionSide::bytes_needed(attention_options()))};
}

SideReport Slice::ffn_report(const cuda::GpuLimits& limits) const {
  if (!ffn_) return {};
  return {.layer_floor = floor_us(ffn_->layer_bytes(), ffn_->layer_flops(), limits),
          .gigabytes = 1e-9 * static_cast<double>(FfnSide::bytes_needed(ffn_options()))};
}

// Of both GPUs.
std::int64_t free_bytes(const SliceOptions& options) {
  std::int64_t bytes = 0;
  for (const std::int32_t gpu : {options.attention_gpu, options.ffn_gpu}) {
    const OnDevice on(gpu);
    bytes += static_cast<std::int64_t>(cuda::look_at_device().bytes_free);
  }
  return bytes;
}

}  // namespace

SliceReport measure_slice(const SliceOptions& options, const cuda::GpuLimits& limits) {
  if (const std::string missing = cuda::why_unusable(cuda::look_at_device()); !missing.empty())
    throw Error(ErrorCode::kUnavailable, missing);
  if (options.sides == SliceSides::kBoth && options.attention_gpu == options.ffn_gpu)
    throw Error(
        ErrorCode::kInvalidArgument,
        format("GPU {} for both sides at once: a slice takes two, or one side at a time", options.attention_gpu));
  Slice slice(options);
  SliceReport report{.options = options, .load = load_of(options.deployment, options.rows)};
  report.attention = slice.attention_report(limits);
  report.ffn = slice.ffn_report(limits);
  const int alone = options.sides == SliceSides::kBoth ? std::min(options.steps, kAloneStepsMax) : options.steps;
  if (options.sides != SliceSides::kFfn)
    report.together = report.attention.alone = slice.measure(SliceSides::kAttention, alone);
  if (options.sides != SliceSides::kAttention)
    report.together = report.ffn.alone = slice.measure(SliceSides::kFfn, alone);
  if (options.sides == SliceSides::kBoth) {
    const std::uint32_t before = slice.mismatches();
    const std::int64_t free = free_bytes(options);
    report.together = slice.measure(SliceSides::kBoth, options.steps);
    report.memory_growth = free - free_bytes(options);
    report.mismatches = slice.mismatches() - before;
  }
  report.expert_rows_max = slice.expert_rows_max();
  return report;
}

SliceReport best_slice(const SliceOptions& options, double tpot_us, const cuda::GpuLimits& limits,
                       const std::function<void(const SliceReport&)>& on_try) {
  SliceReport best;
  const auto step_us = [&](std::int32_t rows) -> std::optional<double> {
    SliceOptions tried = options;
    tried.rows = rows;
    try {
      SliceReport report = measure_slice(tried, limits);
      on_try(report);
      const double us = report.together.median;
      if (us <= tpot_us && rows > best.options.rows) best = std::move(report);
      return us;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kOutOfResources) throw;
      return std::nullopt;
    }
  };
  // As many tokens of context to begin with as 128 sequences of 4,096 have.
  (void)most_rows(128 * 4096 / options.context, tpot_us, step_us);
  return best;
}

}  // namespace tandem
