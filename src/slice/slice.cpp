// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/slice.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/device.h"
#include "ops/cuda/peer/devices.h"
#include "ops/cuda/peer/recorded_work.h"
#include "ops/cuda/peer/step_clock.h"
#include "ops/cuda/peer/stream_flag.h"
#include "slice/attention_side.h"
#include "slice/ffn_side.h"
#include "slice/random_weights.h"

namespace tandem {

namespace {

using cuda::DeviceMemory;
using cuda::OnDevice;
using cuda::Stream;

constexpr int kWarmUpSteps = 6, kStepsAhead = 8;
constexpr std::chrono::seconds kPatience{20};  // for one step

enum class Roles : std::uint8_t { kBoth, kAttention, kFfn };

// What a micro-batch needs on one GPU besides its side's memory.
struct Chain {
  cuda::WorkStream stream, other;
  DeviceMemory flag;                                           // raised by the other side
  DeviceMemory elsewhere;                                      // where hand-overs go whose receivers are not there
  DeviceMemory exchange_out, exchange_rows, exchange_results;  // for the other GPU
  cuda::RecordedWork step;
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

  StepTimes measure(Roles roles);
  std::uint32_t mismatches() const;
  std::int32_t expert_rows_max() const { return ffn_->expert_rows_max(); }
  SideReport attention_report(const cuda::GpuLimits& limits) const;
  SideReport ffn_report(const cuda::GpuLimits& limits) const;

 private:
  AttentionSideOptions attention_options() const;
  FfnSideOptions ffn_options() const;
  std::vector<Chain> make_chains(std::size_t elsewhere_bytes);
  void give_exchange_memory();
  void record(Roles roles);
  void record_attention(std::int32_t m, bool alone);
  void record_ffn(std::int32_t m, bool alone);
  void wait_for(const cuda::StepClock& clock, std::size_t mark) const;

  SliceOptions options_;
  SliceLoad load_;
  std::unique_ptr<AttentionSide> attention_;
  std::unique_ptr<FfnSide> ffn_;
  std::vector<Chain> of_attention_, of_ffn_;
};

Slice::Slice(const SliceOptions& options) : options_(options), load_(load_of(options.deployment, options.rows)) {
  cuda::connect_devices(options.attention_gpu, options.ffn_gpu);
  const HandOverLayout layout{.rows = options.rows};
  {
    const OnDevice on(options.attention_gpu);
    attention_ = std::make_unique<AttentionSide>(attention_options());
    of_attention_ = make_chains(std::max(layout.answer_bytes(load_.rail_blocks), layout.bytes()));
    give_exchange_memory();
  }
  const OnDevice on(options.ffn_gpu);
  ffn_ = std::make_unique<FfnSide>(ffn_options());
  of_ffn_ = make_chains(std::max(layout.answer_bytes(load_.rail_blocks), layout.bytes()));
  for (std::int32_t m = 0; m < options.micro_batches; ++m) {
    const Chain& theirs = of_attention_[static_cast<std::size_t>(m)];
    ffn_->exchange_with({.out = theirs.exchange_out.as<std::byte>(),
                         .rows_in = theirs.exchange_rows.as<std::byte>(),
                         .results_in = theirs.exchange_results.as<std::byte>()},
                        m, of_ffn_[static_cast<std::size_t>(m)].other.get());
  }
}

AttentionSideOptions Slice::attention_options() const {
  return {.model = options_.model,
          .rows = options_.rows,
          .micro_batches = options_.micro_batches,
          .context = options_.context,
          .ffn_servers = options_.deployment.ffn_servers,
          .answer_blocks = load_.rail_blocks};
}

FfnSideOptions Slice::ffn_options() const {
  return {.model = options_.model,
          .deployment = options_.deployment,
          .rows = options_.rows,
          .micro_batches = options_.micro_batches,
          .zipf_exponent = options_.zipf_exponent};
}

std::vector<Chain> Slice::make_chains(std::size_t elsewhere_bytes) {
  std::vector<Chain> chains;
  for (std::int32_t m = 0; m < options_.micro_batches; ++m) {
    Chain chain;
    chain.flag = zeros(sizeof(std::uint32_t));
    chain.elsewhere = DeviceMemory(elsewhere_bytes);
    chains.push_back(std::move(chain));
  }
  return chains;
}

void Slice::give_exchange_memory() {
  for (Chain& chain : of_attention_) {
    chain.exchange_out =
        DeviceMemory(static_cast<std::size_t>(std::max(load_.exchange_out_bytes, load_.exchange_back_bytes)));
    chain.exchange_rows = random_tiles(1, 1, std::max<std::int64_t>(load_.exchange_out_bytes, 1), 5);
    chain.exchange_results = random_bf16(std::max<std::int64_t>(load_.exchange_back_bytes / 2, 1), 1, 6);
  }
  cuda::synchronise();
}

void Slice::record(Roles roles) {
  for (std::int32_t m = 0; m < options_.micro_batches; ++m) {
    if (roles != Roles::kFfn) record_attention(m, roles == Roles::kAttention);
    if (roles != Roles::kAttention) record_ffn(m, roles == Roles::kFfn);
  }
}

// To every FFN server goes a copy of the rows; the first is the slice's.
void Slice::record_attention(std::int32_t m, bool alone) {
  const OnDevice on(options_.attention_gpu);
  Chain& own = of_attention_[static_cast<std::size_t>(m)];
  const Chain& theirs = of_ffn_[static_cast<std::size_t>(m)];
  const Stream stream = own.stream.get();
  const std::size_t bytes = attention_->layout().bytes();
  own.step = cuda::RecordedWork(stream, [&] {
    attention_->begin_step(m, stream);
    for (std::int32_t layer = 0; layer < options_.model.layers; ++layer) {
      attention_->run_layer(layer, m, stream);
      std::byte* to = alone ? own.elsewhere.as<std::byte>() : ffn_->hand_over(m);
      cuda::copy_between_devices(to, attention_->hand_over(m), bytes, stream);
      if (!alone) cuda::raise_flag(theirs.flag.as<std::uint32_t>(), stream);
      for (std::int32_t server = 1; server < options_.deployment.ffn_servers; ++server)
        cuda::copy_between_devices((alone ? own : theirs).elsewhere.as<std::byte>(), attention_->hand_over(m), bytes,
                                   stream);
      if (!alone) cuda::wait_and_lower_flag(own.flag.as<std::uint32_t>(), stream);
    }
    attention_->end_step(m, stream);
  });
}

void Slice::record_ffn(std::int32_t m, bool alone) {
  const OnDevice on(options_.ffn_gpu);
  Chain& own = of_ffn_[static_cast<std::size_t>(m)];
  const Chain& theirs = of_attention_[static_cast<std::size_t>(m)];
  const Stream stream = own.stream.get();
  const std::size_t bytes = ffn_->layout().answer_bytes(load_.rail_blocks);
  own.step = cuda::RecordedWork(stream, [&] {
    for (std::int32_t layer = 0; layer < options_.model.layers; ++layer) {
      if (!alone) cuda::wait_and_lower_flag(own.flag.as<std::uint32_t>(), stream);
      ffn_->run_layer(layer, m, stream);
      cuda::copy_between_devices(alone ? own.elsewhere.as<std::byte>() : attention_->answer(m), ffn_->answer(m), bytes,
                                 stream);
      if (!alone) cuda::raise_flag(theirs.flag.as<std::uint32_t>(), stream);
    }
    ffn_->end_step(m, stream);
  });
}

// A side that waits for ever is a bug or a lost GPU: told, not endured.
void Slice::wait_for(const cuda::StepClock& clock, std::size_t mark) const {
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (!clock.has_passed(mark)) {
    if (std::chrono::steady_clock::now() > until)
      throw Error(ErrorCode::kInternal, format("step {} did not end within {} s", mark, kPatience.count()));
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

StepTimes Slice::measure(Roles roles) {
  record(roles);
  const bool has_attention = roles != Roles::kFfn;
  std::vector<Chain>& timed = has_attention ? of_attention_ : of_ffn_;
  const int timed_gpu = has_attention ? options_.attention_gpu : options_.ffn_gpu;
  std::vector<cuda::StepClock> clocks(timed.size());
  for (std::size_t step = 0; step < static_cast<std::size_t>(options_.steps + kWarmUpSteps); ++step) {
    for (std::size_t m = 0; m < timed.size(); ++m) {
      if (roles == Roles::kBoth) {
        const OnDevice on(options_.ffn_gpu);
        of_ffn_[m].step.launch(of_ffn_[m].stream.get());
      }
      const OnDevice on(timed_gpu);
      timed[m].step.launch(timed[m].stream.get());
      clocks[m].mark(timed[m].stream.get());
    }
    if (step >= kStepsAhead) wait_for(clocks[0], step - kStepsAhead);
  }
  std::vector<double> all;
  for (std::size_t m = 0; m < timed.size(); ++m) {
    wait_for(clocks[m], clocks[m].marks() - 1);
    const std::vector<double> times = clocks[m].microseconds();
    all.insert(all.end(), times.begin() + kWarmUpSteps, times.end());
  }
  for (const int gpu : {options_.attention_gpu, options_.ffn_gpu}) {
    const OnDevice on(gpu);
    cuda::synchronise();
  }
  if (has_attention) attention_->check_tokens();
  return step_times(std::move(all));
}

std::uint32_t Slice::mismatches() const {
  return attention_->mismatches() + ffn_->mismatches();
}

double floor_us(double bytes, double flops, const cuda::GpuLimits& limits) {
  return 1e6 * std::max(bytes / limits.read_bytes_per_second, flops / limits.fp8_flops_per_second);
}

SideReport Slice::attention_report(const cuda::GpuLimits& limits) const {
  return {.layer_floor = floor_us(attention_->layer_bytes(), attention_->layer_flops(), limits),
          .gigabytes = 1e-9 * static_cast<double>(AttentionSide::bytes_needed(attention_options()))};
}

SideReport Slice::ffn_report(const cuda::GpuLimits& limits) const {
  return {.layer_floor = floor_us(ffn_->layer_bytes(), ffn_->layer_flops(), limits),
          .gigabytes = 1e-9 * static_cast<double>(FfnSide::bytes_needed(ffn_options()))};
}

}  // namespace

SliceReport measure_slice(const SliceOptions& options, const cuda::GpuLimits& limits) {
  if (const std::string missing = cuda::why_unusable(cuda::look_at_device()); !missing.empty())
    throw Error(ErrorCode::kUnavailable, missing);
  Slice slice(options);
  SliceReport report{.options = options, .load = load_of(options.deployment, options.rows)};
  report.attention = slice.attention_report(limits);
  report.ffn = slice.ffn_report(limits);
  report.attention.alone = slice.measure(Roles::kAttention);
  report.ffn.alone = slice.measure(Roles::kFfn);
  const std::uint32_t before = slice.mismatches();
  report.together = slice.measure(Roles::kBoth);
  report.mismatches = slice.mismatches() - before;
  report.expert_rows_max = slice.expert_rows_max();
  return report;
}

SliceReport best_slice(SliceOptions options, double tpot_us, const cuda::GpuLimits& limits,
                       const std::function<void(const SliceReport&)>& on_try) {
  constexpr std::int32_t kStep = 8;
  SliceReport best;
  std::int32_t too_many = 1 << 20;
  for (int tries = 0; tries < 5; ++tries) {
    SliceReport report = measure_slice(options, limits);
    on_try(report);
    const bool fits = report.together.median <= tpot_us;
    if (fits && options.rows > best.options.rows) best = report;
    if (!fits) too_many = std::min(too_many, options.rows);
    // Time grows by less than rows do.
    const double wanted = options.rows * tpot_us / report.together.median;
    std::int32_t next = static_cast<std::int32_t>(wanted) / kStep * kStep;
    next = std::clamp(next, best.options.rows + (best.options.rows > 0 ? kStep : 0), too_many - kStep);
    if (next <= best.options.rows || next == options.rows || next < kStep) break;
    options.rows = next;
  }
  return best;
}

}  // namespace tandem
