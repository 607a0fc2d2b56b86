// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Every kernel of Step-3's attention and FFN GPUs (slice/attention_side.h, slice/ffn_side.h), timed one by one at a
// ladder of batches and contexts, at the clock that a GPU has while it works like that for long: what the planner adds
// up (plan/stage_ladders.h).
//
// A GPU under its power limit slows down within a fraction of a second, and by as much as its kernels together ask of
// it. So each sample comes right after milliseconds of the whole stage, and that goes on without a pause. A kernel has
// two times. One: half a millisecond and more of its calls, one after the other, over weights and caches of several
// layers. The other: by how much longer the stage takes, with three micro-batches beside each other, when the kernel is
// called more often. Times of the second kind add up to that of the stage wherever twice of everything takes twice as
// long (Euler's theorem on homogeneous functions), whoever hides behind whom.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace tandem {

struct StageTime {
  std::string stage;         // "attention", "head" (once a step and micro-batch), "ffn"
  std::string kernel;        // "q-up"; "flag": waited for and raised; "layer": all of them, to compare the sum with
  std::int32_t rows = 0;     // of a micro-batch: on an attention GPU, or that all FFN GPUs get together
  std::int32_t context = 0;  // of attention
  std::int32_t gpus = 0;     // of the FFN, over which the experts are spread
  double microseconds = 0;   // one call after the other in one stream
  double microseconds_beside = 0;  // what a call adds to a stage of three micro-batches
  int clock_mhz = 0;               // while it was measured; 0: the driver does not tell
  double watts = 0;
};

struct StageBenchOptions {
  bool attention = true, ffn = true;  // which sides
  // With the first context all kernels, then attention alone.
  std::vector<std::int32_t> attention_rows{8,  12, 16, 20,  24,  28,  32,  40,  48,  56, 64,
                                           72, 80, 96, 112, 128, 136, 144, 160, 192, 256};
  std::vector<std::int32_t> contexts{4096, 2048, 8192, 16384, 32768};
  std::vector<std::int32_t> ffn_servers{2, 1, 3};  // of eight GPUs
  std::vector<std::int32_t> ffn_rows{256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 2560, 2816, 3072, 3584, 4096};
  std::int64_t tokens_max = 1'700'000;  // rows · context of a micro-batch; what is more is left out
  int samples = 9;                      // the median counts
  double warm_up_seconds = 0.5;         // before the first sample of every shape
};

// Throws Error{kUnavailable} where there is no usable GPU, Error{kInvalidArgument} for rows of the FFN that are no
// multiple of 16 (two attention servers of eight), and Error{kOutOfResources} where a shape has no room.
void bench_stages(const StageBenchOptions& options, const std::function<void(const StageTime&)>& on_time);

}  // namespace tandem
