// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A random MFA decode step on the GPU with its answer from the CPU: what tests and benchmarks of mfa_decode.h share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/cuda/attention/mfa_decode.h"
#include "ops/cuda/attention/mfa_prepare.h"
#include "ops/cuda/bench/paged_sequences.h"
#include "ops/cuda/bench/scheduled_work.h"
#include "ops/cuda/device_memory.h"

namespace tandem::cuda {

struct MfaProblemOptions {
  MfaCache cache = MfaCache::kFp8;
  std::vector<std::int32_t> lengths;
  float score_deviation = 1;
  float v_mean = 0;
  bool sink = false;  // the first token has most of the weight
  bool deterministic = false;
  int copies = 1;  // of the whole cache, to rotate through
  int blocks = 0;  // thread blocks; 0: one for each multiprocessor
  DecodeCosts costs{};
  std::uint32_t seed = 1;
};

class MfaProblem {
 public:
  explicit MfaProblem(const MfaProblemOptions& options);

  void run(Stream stream, int copy) const { cuda::run(decode(copy), stream); }
  MfaDecode decode(int copy) const;
  // Appends the newest token of each sequence of copy 0 and makes queries; what they are made of is not set.
  MfaPrepare prepare() const;
  std::vector<std::uint16_t> output() const { return out_.download<std::uint16_t>(); }  // bf16
  void poison_output() { out_.fill(0xff); }
  const DecodeSchedule& schedule() const { return work_.schedule(); }
  std::string remark() const { return schedule().to_string(); }  // for a benchmark's reader
  // f32 attention over the quantised cache of copy 0 with the bf16 queries, in double: [64, 256].
  std::vector<double> expected(std::int32_t sequence) const;
  // ‖output − expected‖ / ‖expected‖ of some sequences together, after run(…, 0). NaN when something is NaN.
  double relative_error(const std::vector<std::int32_t>& sequences) const;
  double bytes() const;  // that one run reads and writes, at least
  double flops() const;  // useful ones: one product with each term counts once

 private:
  void fill_cache();
  void fill_queries();

  MfaProblemOptions options_;
  PagedSequences sequences_;
  ScheduledWork work_;
  std::vector<float> queries_;  // as rounded to bf16
  DeviceMemory pages_, table_, lengths_, q_tiles_, q_scales_, out_;
  DeviceMemory newest_slots_, newest_positions_;
};

}  // namespace tandem::cuda
