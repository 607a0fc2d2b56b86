// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/slice_gpus.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/device.h"
#include "ops/cuda/peer/clock_offset.h"
#include "ops/cuda/peer/held_stream.h"
#include "ops/cuda/peer/stream_flag.h"
#include "ops/cuda/split/decode_step.h"
#include "slice/flag_waiters.h"
#include "slice/side_memory.h"
#include "slice/step_loop.h"

namespace tandem {

namespace {

using cuda::DeviceMemory;
using cuda::OnDevice;
using cuda::Stream;

// Points of a layer on each side, as slice_trace.h names them.
enum AttentionPoint : std::int32_t { kReturned, kHandedOver, kAttentionPoints };
enum FfnPoint : std::int32_t { kSeen, kGathered, kMultiplied, kSent, kFfnPoints };

double floor_us(double bytes, double flops, const cuda::GpuLimits& limits) {
  return 1e6 * std::max(bytes / limits.read_bytes_per_second, flops / limits.fp8_flops_per_second);
}

// Both sides' stamps: how many steps' are kept, where the trace begins, and how the FFN GPU's clock was off.
struct StampOrigin {
  std::int32_t kept_steps;
  std::int32_t first_step;  // of the trace, counted from the first that was run
  cuda::ClockOffset before, after;
};

// In microseconds from the trace's earliest stamp.
void fill_times(SliceTrace& trace, const std::vector<std::uint64_t>& attention, const std::vector<std::uint64_t>& ffn,
                const StampOrigin& origin) {
  const StampShape a{origin.kept_steps, trace.layers, trace.micro_batches, kAttentionPoints};
  const StampShape f{origin.kept_steps, trace.layers, trace.micro_batches, kFfnPoints};
  const std::int32_t first = origin.first_step % origin.kept_steps;
  const auto of_ffn = [&](std::uint64_t stamp) { return cuda::to_first_clock(stamp, origin.before, origin.after); };
  std::int64_t zero = std::numeric_limits<std::int64_t>::max();
  for (std::int32_t m = 0; m < trace.micro_batches; ++m) {
    if (trace.attention) zero = std::min(zero, static_cast<std::int64_t>(attention[a.place(first, 0, m, kReturned)]));
    if (trace.ffn) zero = std::min(zero, of_ffn(ffn[f.place(first, 0, m, kSeen)]));
  }
  for (std::int32_t step = 0; step < trace.steps; ++step)
    for (std::int32_t layer = 0; layer < trace.layers; ++layer)
      for (std::int32_t m = 0; m < trace.micro_batches; ++m) {
        const std::int32_t kept = (first + step) % origin.kept_steps;
        const auto on_attention = [&](AttentionPoint point) {
          if (!trace.attention) return 0.;
          return 1e-3 *
                 static_cast<double>(static_cast<std::int64_t>(attention[a.place(kept, layer, m, point)]) - zero);
        };
        const auto on_ffn = [&](FfnPoint point) {
          return trace.ffn ? 1e-3 * static_cast<double>(of_ffn(ffn[f.place(kept, layer, m, point)]) - zero) : 0.;
        };
        trace.times.push_back({.returned = on_attention(kReturned),
                               .handed_over = on_attention(kHandedOver),
                               .seen = on_ffn(kSeen),
                               .gathered = on_ffn(kGathered),
                               .multiplied = on_ffn(kMultiplied),
                               .sent = on_ffn(kSent)});
      }
  derive_begun(trace);
}

}  // namespace

SliceGpus::SliceGpus(const SliceOptions& options) : options_(options) {
  if (options.sides == SliceSides::kBoth) cuda::connect_devices(options.attention_gpu, options.ffn_gpu);
  if (options.sides != SliceSides::kFfn) {
    const OnDevice on(options.attention_gpu);
    a_ = std::make_unique<AttentionLanes>();
    a_->to_ffn_free_at = zeros(8);
    a_->to_attention_free_at = zeros(8);
  }
  if (options.sides != SliceSides::kAttention) {
    const OnDevice on(options.ffn_gpu);
    f_ = std::make_unique<FfnLanes>();
  }
  give_rows();
}

void SliceGpus::take(const SliceOptions& options) {
  const bool same_batch = has_rows_ && options.batch() == options_.batch();
  options_ = options;
  if (!same_batch) give_rows();
}

// Sides that are there keep their weights.
void SliceGpus::give_rows() {
  has_rows_ = false;
  load_ = load_of(options_.deployment, options_.rows);
  if (a_) give_attention_rows();
  if (f_) give_ffn_rows();
  has_rows_ = true;
}

void SliceGpus::give_attention_rows() {
  const OnDevice on(options_.attention_gpu);
  make_flags(*a_);
  a_->lanes.resize(static_cast<std::size_t>(options_.micro_batches));
  if (attention_)
    attention_->resize(options_.batch(), load_.own_blocks);
  else
    attention_ = std::make_unique<AttentionSide>(attention_options());
}

void SliceGpus::give_ffn_rows() {
  {
    const OnDevice on(options_.sides == SliceSides::kBoth ? options_.attention_gpu : options_.ffn_gpu);
    give_exchange_memory();
  }
  const OnDevice on(options_.ffn_gpu);
  make_flags(*f_);
  if (ffn_)
    ffn_->resize(options_.batch());
  else
    ffn_ = std::make_unique<FfnSide>(ffn_options());
  f_->elsewhere = DeviceMemory(for_other_servers_.bytes());
  ffn_->exchange_with({.out = exchange_out_.as<std::byte>(),
                       .rows_in = exchange_rows_.as<std::byte>(),
                       .results_in = exchange_results_.as<std::byte>(),
                       .for_others = for_other_servers_.as<std::byte>(),
                       .others = f_->elsewhere.as<std::byte>(),
                       .others_bytes = static_cast<std::int64_t>(for_other_servers_.bytes())});
}

AttentionSideOptions SliceGpus::attention_options() const {
  return {.model = options_.model,
          .rows = options_.rows,
          .micro_batches = options_.micro_batches,
          .context = options_.context,
          .ffn_servers = options_.deployment.ffn_servers,
          .return_blocks = load_.own_blocks};
}

FfnSideOptions SliceGpus::ffn_options() const {
  return {.model = options_.model,
          .deployment = options_.deployment,
          .rows = options_.rows,
          .micro_batches = options_.micro_batches,
          .zipf_exponent = options_.zipf_exponent};
}

void SliceGpus::make_flags(Lanes& lanes) const {
  lanes.flags.clear();
  for (std::int32_t m = 0; m < options_.micro_batches; ++m) lanes.flags.push_back(zeros(sizeof(std::uint32_t)));
}

void SliceGpus::give_exchange_memory() {
  exchange_out_ = DeviceMemory(static_cast<std::size_t>(std::max(load_.exchange_out_bytes, load_.exchange_back_bytes)));
  const HandOverLayout layout{.rows = options_.rows};
  for_other_servers_ = zeros(layout.bytes() * static_cast<std::size_t>(options_.deployment.ffn_servers - 1));
  exchange_rows_ = random_tiles(1, 1, std::max<std::int64_t>(load_.exchange_out_bytes, 1), 5);
  exchange_results_ = random_bf16(std::max<std::int64_t>(load_.exchange_back_bytes / 2, 1), 1, 6);
  cuda::synchronise();
}

// The attention side's first step begins with a return of nothing. A side alone returns to itself, so that
// there, too, as many micro-batches are on their way as it has.
void SliceGpus::restart(SliceSides sides, std::int32_t kept_steps) {
  make_stamps(kept_steps);
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

void SliceGpus::make_stamps(std::int32_t kept_steps) {
  const auto stamps = [&](std::int32_t points) {
    if (kept_steps == 0) return SideStamps();
    return SideStamps({.steps = kept_steps,
                       .layers = options_.model.layers,
                       .micro_batches = options_.micro_batches,
                       .points = points});
  };
  if (a_) {
    const OnDevice on(options_.attention_gpu);
    a_->stamps = stamps(kAttentionPoints);
  }
  if (f_) {
    const OnDevice on(options_.ffn_gpu);
    f_->stamps = stamps(kFfnPoints);
  }
}

// A network's time for what one GPU sends or takes there.
void SliceGpus::hold_link(const DeviceMemory& free_at, std::size_t bytes, Stream stream) const {
  if (!options_.link.added()) return;
  cuda::run(cuda::HoldStream{.free_at = free_at.as<std::uint64_t>(),
                             .occupied_ns = options_.link_occupied_ns(static_cast<double>(bytes)),
                             .latency_ns = static_cast<std::uint32_t>(1e3 * options_.link.latency_us)},
            stream);
}

// The last kernels of a layer write into the other GPU's memory. Both directions' added time is spent here, where each
// micro-batch has a stream that nobody else waits for.
void SliceGpus::record_attention(std::int32_t m, bool alone) {
  AttentionLanes::Lane& lane = a_->lanes[static_cast<std::size_t>(m)];
  const Stream work = lane.work.get();
  attention_->send_to(m, alone ? nullptr : ffn_->hand_over(m));
  const HandOverLayout& layout = attention_->layout();
  const std::uint32_t* step = attention_->step(m);
  lane.step = cuda::RecordedWork(work, [&] {
    for (std::int32_t layer = 0; layer < options_.model.layers; ++layer) {
      cuda::wait_and_lower_flag(a_->flag(m), options_.flags, work);
      if (!alone) hold_link(a_->to_attention_free_at, layout.return_block_bytes(), work);
      a_->stamps.stamp(
          {.layer = layer, .micro_batch = m, .point = kReturned, .step = step, .ahead = layer == 0 ? 1u : 0u}, work);
      attention_->run_layer(layer, m, work);
      a_->stamps.stamp({.layer = layer, .micro_batch = m, .point = kHandedOver, .step = step}, work);
      if (!alone) hold_link(a_->to_ffn_free_at, layout.bytes(), work);
      cuda::raise_flag(alone ? a_->flag(m) : f_->flag(m), options_.flags, work);
    }
  });
}

// A graph's branches may share a hardware queue, in any order that the graph allows. So it must say that a wait comes
// after the return without which nobody will raise its flag.
void SliceGpus::record_ffn(bool alone) {
  const Stream up = f_->up.get(), in = f_->in.get(), out = f_->out.get();
  for (std::int32_t m = 0; m < options_.micro_batches; ++m)
    ffn_->return_to(m, alone ? nullptr : attention_->returned(m));
  const std::vector<cuda::StreamPoint> returned(static_cast<std::size_t>(options_.micro_batches));
  f_->step = cuda::RecordedWork(up, [&] {
    cuda::fork_stream(up, in);
    for (std::int32_t layer = 0; layer < options_.model.layers; ++layer)
      for (std::int32_t m = 0; m < options_.micro_batches; ++m) {
        if (layer > 0) returned[static_cast<std::size_t>(m)].wait_for(in);
        record_ffn_layer(layer, m, alone);
        returned[static_cast<std::size_t>(m)].reach(out);
      }
    cuda::join_stream(up, out);
    for (std::int32_t m = 0; m < options_.micro_batches; ++m) ffn_->end_step(m, up);
  });
}

// From stream to stream a kernel begins when the one before it has ended; in one it would be there before.
void SliceGpus::record_ffn_layer(std::int32_t layer, std::int32_t m, bool alone) const {
  const Stream up = f_->up.get(), down = f_->down.get(), in = f_->in.get(), out = f_->out.get();
  const auto stamp = [&](FfnPoint point, Stream stream) {
    f_->stamps.stamp({.layer = layer, .micro_batch = m, .point = point, .step = ffn_->step(m)}, stream);
  };
  cuda::wait_and_lower_flag(f_->flag(m), options_.flags, in);
  stamp(kSeen, in);
  ffn_->gather(layer, m, in);
  stamp(kGathered, in);
  cuda::fork_stream(in, up);
  if (options_.stall_ffn_us > 0)
    cuda::run(cuda::HoldStream{.latency_ns = static_cast<std::uint32_t>(1e3 * options_.stall_ffn_us)}, up);
  ffn_->multiply_up(layer, m, up);
  cuda::fork_stream(up, down);
  ffn_->multiply_down(layer, m, down);
  cuda::join_stream(up, down);
  cuda::fork_stream(down, out);
  stamp(kMultiplied, out);
  ffn_->combine(layer, m, out);
  stamp(kSent, out);
  cuda::raise_flag(alone ? f_->flag(m) : a_->flag(m), options_.flags, out);
}

void SliceGpus::wait_for(const cuda::StepClock& clock, std::size_t mark) const {
  if (wait_until([&] { return clock.has_passed(mark); })) return;
  std::vector<GpuFlags> gpus;
  const auto add = [&](int gpu, const Lanes& lanes) {
    gpus.push_back({.gpu = gpu, .flags = {}});
    for (std::int32_t m = 0; m < options_.micro_batches; ++m) gpus.back().flags.push_back(lanes.flag(m));
  };
  if (a_) add(options_.attention_gpu, *a_);
  if (f_) add(options_.ffn_gpu, *f_);
  const bool freed = free_waiters(gpus, [&] { return clock.has_passed(clock.marks() - 1); });
  TANDEM_CHECK(freed, "a GPU does not come back");
  throw Error(ErrorCode::kInternal, format("step {} of a slice did not end within {} s", mark, kFlagPatience.count()));
}

std::int64_t SliceGpus::free_bytes() const {
  std::int64_t bytes = 0;
  const auto add = [&](int gpu) {
    const OnDevice on(gpu);
    bytes += static_cast<std::int64_t>(cuda::look_at_device().bytes_free);
  };
  if (a_) add(options_.attention_gpu);
  if (f_) add(options_.ffn_gpu);
  return bytes;
}

// As many as are wanted after a warm-up.
void SliceGpus::run_steps(SliceSides sides, MeasuredSteps& steps) {
  const bool has_attention = sides != SliceSides::kFfn;
  const OnDevice on(has_attention ? options_.attention_gpu : options_.ffn_gpu);
  std::int64_t free = 0;  // before the first that is measured
  const auto launch = [&](cuda::StepClock& clock) {
    if (sides != SliceSides::kAttention) {
      const OnDevice there(options_.ffn_gpu);
      f_->step.launch(f_->up.get());
    }
    if (has_attention)
      for (const AttentionLanes::Lane& lane : a_->lanes) lane.step.launch(lane.work.get());
    // Micro-batches are in step, so the last one's times are everybody's.
    clock.mark(has_attention ? a_->lanes.back().work.get() : f_->up.get());
  };
  tandem::run_steps(steps,
                    {.launch = launch,
                     .wait_for = [this](const cuda::StepClock& clock, std::size_t mark) { wait_for(clock, mark); },
                     .told =
                         [&] {
                           if (free == 0 && steps.warm()) free = free_bytes();
                         }});
  cuda::synchronise_device();
  if (sides == SliceSides::kBoth) {
    const OnDevice there(options_.ffn_gpu);
    cuda::synchronise_device();
  }
  memory_growth_ = free - free_bytes();
  if (has_attention) attention_->check_tokens();
}

StepTimes SliceGpus::measure(SliceSides sides, const SliceRun& run) {
  restart(sides, 0);
  MeasuredSteps measured(run.steps, run.warm_up_seconds);
  run_steps(sides, measured);
  return measured.times();
}

// The steps that are measured are the trace's; those that were on their way beside the last of them have stamps, too.
SliceTrace SliceGpus::trace(SliceSides sides) {
  const std::int32_t kept = options_.trace_steps + kStepsAhead;
  restart(sides, kept);
  const auto offset = [&] {
    return sides == SliceSides::kBoth ? cuda::measure_clock_offset(options_.attention_gpu, options_.ffn_gpu)
                                      : cuda::ClockOffset{};
  };
  const cuda::ClockOffset before = offset();
  MeasuredSteps measured(options_.trace_steps, options_.warm_up_seconds);
  run_steps(sides, measured);
  const cuda::ClockOffset after = offset();
  const StepTimes times = measured.times();
  SliceTrace trace{.steps = options_.trace_steps,
                   .layers = options_.model.layers,
                   .micro_batches = options_.micro_batches,
                   .attention = sides != SliceSides::kFfn,
                   .ffn = sides != SliceSides::kAttention,
                   .clock_error_us = 1e-3 * static_cast<double>(std::max(before.error_ns, after.error_ns)),
                   .step_us = times.median};
  fill_times(trace, trace.attention ? a_->stamps.download() : std::vector<std::uint64_t>(),
             trace.ffn ? f_->stamps.download() : std::vector<std::uint64_t>(),
             {.kept_steps = kept, .first_step = times.warm_up.steps + 1, .before = before, .after = after});
  return trace;
}

std::uint32_t SliceGpus::mismatches() const {
  return (attention_ ? attention_->mismatches() : 0) + (ffn_ ? ffn_->mismatches() : 0);
}

SideReport SliceGpus::attention_report(const cuda::GpuLimits& limits) const {
  if (!attention_) return {};
  return {.layer_floor = floor_us(attention_->layer_bytes(), attention_->layer_flops(), limits),
          .gigabytes = 1e-9 * static_cast<double>(AttentionSide::bytes_needed(attention_options()))};
}

SideReport SliceGpus::ffn_report(const cuda::GpuLimits& limits) const {
  if (!ffn_) return {};
  return {.layer_floor = floor_us(ffn_->layer_bytes(), ffn_->layer_flops(), limits),
          .gigabytes = 1e-9 * static_cast<double>(FfnSide::bytes_needed(ffn_options()))};
}

}  // namespace tandem
