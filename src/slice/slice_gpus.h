// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The GPUs of a slice with both sides' memory, and their steps: recorded, launched, timed, stamped (slice.h says what a
// slice is).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ops/cuda/bench/gpu_limits.h"
#include "ops/cuda/peer/devices.h"
#include "ops/cuda/peer/recorded_work.h"
#include "ops/cuda/peer/step_clock.h"
#include "slice/attention_side.h"
#include "slice/ffn_side.h"
#include "slice/side_stamps.h"
#include "slice/slice.h"
#include "slice/slice_trace.h"

namespace tandem {

struct SliceRun {
  int steps = 0;
  double warm_up_seconds = 0;
};

class SliceGpus {
 public:
  // Throws as measure_slice does.
  explicit SliceGpus(const SliceOptions& options);
  // The same deployment's, with other rows, micro-batches or steps. Where it throws, for memory, it can be asked for
  // others.
  void take(const SliceOptions& options);

  StepTimes measure(SliceSides sides, const SliceRun& run);
  // The same with stamps, of options.trace_steps.
  SliceTrace trace(SliceSides sides);
  std::uint32_t mismatches() const;
  std::int64_t memory_growth() const { return memory_growth_; }  // bytes of both GPUs, during the last steps measured
  std::int32_t expert_rows_max() const { return ffn_ ? ffn_->expert_rows_max() : 0; }
  SideReport attention_report(const cuda::GpuLimits& limits) const;
  SideReport ffn_report(const cuda::GpuLimits& limits) const;

 private:
  // What each side has on its GPU besides its memory.
  struct Lanes {
    std::vector<cuda::DeviceMemory> flags;  // of each micro-batch, raised by the other side
    SideStamps stamps;

    std::uint32_t* flag(std::int32_t m) const { return flags[static_cast<std::size_t>(m)].as<std::uint32_t>(); }
  };

  // On the attention GPU every micro-batch has a stream of its own: where one leaves multiprocessors idle (small
  // kernels, the last blocks of a product), another goes on.
  struct AttentionLanes : Lanes {
    struct Lane {
      cuda::WorkStream work;
      cuda::RecordedWork step;
    };
    std::vector<Lane> lanes;
    // Of each direction: when the link has sent what it was given.
    cuda::DeviceMemory to_ffn_free_at, to_attention_free_at;
  };

  // On the FFN GPU micro-batches are multiplied in turn, which also keeps them in step. What comes in and goes out has
  // streams of its own, so that links and sums work while products do.
  struct FfnLanes : Lanes {
    cuda::WorkStream up, down, in{cuda::WorkStream::Priority::kUrgent}, out{cuda::WorkStream::Priority::kUrgent};
    cuda::RecordedWork step;
    cuda::DeviceMemory elsewhere;  // for what goes to servers that are not there
  };

  AttentionSideOptions attention_options() const;
  FfnSideOptions ffn_options() const;
  void make_flags(Lanes& lanes) const;
  void give_rows();
  void give_attention_rows();
  void give_ffn_rows();
  void give_exchange_memory();
  void restart(SliceSides sides, std::int32_t kept_steps);
  void make_stamps(std::int32_t kept_steps);
  void record_attention(std::int32_t m, bool alone);
  void record_ffn(bool alone);
  void record_ffn_layer(std::int32_t layer, std::int32_t m, bool alone) const;
  void hold_link(const cuda::DeviceMemory& free_at, std::size_t bytes, cuda::Stream stream) const;
  void run_steps(SliceSides sides, MeasuredSteps& steps);
  std::int64_t free_bytes() const;
  // Throws Error{kInternal} where it takes too long.
  void wait_for(const cuda::StepClock& clock, std::size_t mark) const;

  SliceOptions options_;
  SliceLoad load_;
  bool has_rows_ = false;  // not where there was no memory for them
  std::int64_t memory_growth_ = 0;
  std::unique_ptr<AttentionSide> attention_;
  std::unique_ptr<FfnSide> ffn_;
  std::unique_ptr<AttentionLanes> a_;
  std::unique_ptr<FfnLanes> f_;
  // On the attention GPU, if there is one.
  cuda::DeviceMemory exchange_out_, exchange_rows_, exchange_results_, for_other_servers_;
};

}  // namespace tandem
