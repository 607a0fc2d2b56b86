// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One attention GPU and one FFN GPU of a real deployment of Step-3, at full size, working together: what a deployment
// of any number of them does per step, measured on two GPUs (or each side alone, on one).
//
// A micro-batch is a chain on each GPU, one CUDA graph a step, and the chains of both GPUs wait for each other by flags
// in memory (ops/cuda/peer/stream_flag.h): no CPU is in between, and no multiprocessor unless threads wait for flags
// (SliceOptions::flags). Chains of different micro-batches know nothing of each other, and no step waits for the
// others' to end.
//
// Measured: the time per step with both sides, and of each side with nobody to wait for. Projected: tokens/s/GPU of the
// deployment = what this attention GPU makes · attention GPUs / all GPUs, since every GPU of a side has the same load;
// the FFN GPU is given that of the busiest one. Not in it: the jitter of many machines and of their network.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "ops/cuda/bench/gpu_limits.h"
#include "ops/cuda/peer/stream_flag.h"
#include "slice/measured_steps.h"
#include "slice/slice_shape.h"
#include "slice/slice_trace.h"

namespace tandem {

// kBoth measures each side alone as well; the others leave one GPU out.
enum class SliceSides : std::uint8_t { kBoth, kAttention, kFfn };

// Time that a network would add to a link, each way: messages of one direction come one after the other, and each is
// seen later by the latency. On the attention GPU timers stand for it, a warp each.
struct AddedLink {
  double latency_us = 0;
  double gbps = 0;  // 10^9 bits a second of one GPU; 0: no time for bytes

  bool added() const { return latency_us > 0 || gbps > 0; }
  std::uint32_t occupied_ns(double bytes) const { return gbps > 0 ? static_cast<std::uint32_t>(8 * bytes / gbps) : 0; }
};

struct SliceOptions {
  SliceModel model;
  SliceDeployment deployment;
  std::int32_t rows = 0;  // of a micro-batch
  static constexpr std::int32_t kRowsMax = 1024;
  std::int32_t micro_batches = 3, context = 4096;
  SliceSides sides = SliceSides::kBoth;
  std::int32_t attention_gpu = 0, ffn_gpu = 1;
  std::int32_t steps = 60;      // of both sides together, measured after a warm-up; a side alone has 40 at most
  double warm_up_seconds = 10;  // at most (measured_steps.h); of a side alone, which comes after, 2
  bool alone = true;            // each side is measured by itself, too, where both are together
  cuda::FlagsBy flags = cuda::FlagsBy::kFrontEnds;
  double zipf_exponent = 0;      // of how experts are chosen; 0: uniform
  std::int32_t trace_steps = 0;  // further steps with stamps in them (slice_trace.h); at least 2; 0: none
  AddedLink link;                // of both sides together; of ep16 and ep24 for what goes to other servers
  double stall_ffn_us = 0;       // that the FFN GPU loses in every layer, for one micro-batch after the other

  SliceBatch batch() const { return {.micro_batches = micro_batches, .rows = rows}; }
  void set(const SliceBatch& batch) { micro_batches = batch.micro_batches, rows = batch.rows; }
  // Nanoseconds that the added link has one micro-batch's messages of bytes each: of the two sides' GPUs those of the
  // one that has more to send or take there.
  std::uint32_t link_occupied_ns(double bytes) const {
    return link.occupied_ns(bytes * std::max(deployment.attention_servers, deployment.ffn_servers));
  }
};

inline constexpr int kStepsAhead = 8;  // that are launched before one of them has ended

struct SideReport {
  StepTimes alone;         // nobody to wait for
  double layer_floor = 0;  // microseconds: bytes over bandwidth or operations over rate, whichever is longer
  double gigabytes = 0;    // of memory it needs
};

struct SliceReport {
  SliceOptions options;
  SliceLoad load;
  SideReport attention, ffn;     // of ep16 and ep24: the memory of both, under attention
  StepTimes together;            // of one side alone where only that was measured
  std::uint32_t mismatches = 0;  // hand-overs that were not the expected one
  std::int32_t expert_rows_max = 0;
  std::int64_t memory_growth = 0;  // bytes of both GPUs, while the steps together were measured
  SliceTrace trace;                // without steps where none was asked for

  double tokens_per_second_of_attention_gpu() const;
  double tokens_per_second_per_gpu() const;
  double stage_of(const SideReport& side) const;  // microseconds of a layer and micro-batch, alone
  // 1 - busy / elapsed of the slower side.
  double bubbles() const;
  bool sides_alone() const { return options.sides != SliceSides::kBoth || options.alone; }
};

// A deployment without sides takes the attention GPU, and the other one's memory for what is exchanged; of trace_steps
// and stall_ffn_us it knows nothing.
//
// Throws Error{kUnavailable} (a GPU, a way between them), Error{kInvalidArgument} (both sides on one GPU: branches of
// their graphs would share its queues, in which one's wait may stand before what the other waits for) and
// Error{kOutOfResources} (memory), each with the numbers.
SliceReport measure_slice(const SliceOptions& options, const cuda::GpuLimits& limits);

struct SliceObserver {
  std::function<void(const SliceReport&)> on_report;
  std::function<void(const SliceBatch&, const Error&)> on_no_room;  // the other batches are measured
};
// The same for several batches in place of the options' own, one after the other, with weights that are made once. Of
// Error{kOutOfResources} the observer is told.
void measure_batches(const SliceOptions& options, std::span<const SliceBatch> batches, const cuda::GpuLimits& limits,
                     const SliceObserver& observer);

struct SliceSearch {
  double tpot_us = 0;                       // of a median step, at most
  std::vector<std::int32_t> micro_batches;  // how many may be on their way at once
};

// The most tokens per second within the time, whatever options.rows and options.micro_batches say; none: a report
// without rows. Of each number of micro-batches those rows are tried that lead to the most within the time
// (row_search.h): as times rise in steps, fewer may make more. Every try is told: a few steps together.
SliceReport best_slice(const SliceOptions& options, const SliceSearch& search, const cuda::GpuLimits& limits,
                       const std::function<void(const SliceReport&)>& on_try);

}  // namespace tandem
