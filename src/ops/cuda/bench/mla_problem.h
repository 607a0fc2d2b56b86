// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A random MLA decode step on the GPU with its answer from the CPU: what tests and benchmarks of mla_decode.h and
// mla_attention.h share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/cuda/attention/mla_decode.h"
#include "ops/cuda/bench/paged_sequences.h"
#include "ops/cuda/bench/scheduled_work.h"
#include "ops/cuda/device_memory.h"

namespace tandem::cuda {

struct MlaProblemOptions {
  std::vector<std::int32_t> lengths;
  float score_deviation = 1;
  float mean = 0;  // of the latents
  bool deterministic = false;
  bool as_rows = false;  // by MlaAttention, as the engine does: two terms, f32 in and out, parts for a schedule
  int copies = 1;        // of the whole cache, to rotate through
  int clusters = 0;      // of two thread blocks; 0: as many as there is room for
  std::uint32_t seed = 1;
};

class MlaProblem {
 public:
  explicit MlaProblem(const MlaProblemOptions& options);

  void run(Stream stream, int copy) const;
  std::vector<std::uint16_t> output() const { return out_.download<std::uint16_t>(); }  // bf16; not as rows
  void poison_output() { out_.fill(0xff); }
  // Writes NaN over one token of copy 0.
  void poison_token(std::int32_t sequence, std::int32_t token);
  const DecodeSchedule& schedule() const { return work_.schedule(); }
  std::string remark() const;  // for a benchmark's reader
  // ‖output − expected‖ / ‖expected‖ over some heads of these sequences, after run(…, 0); expected is attention in
  // double over the cache as stored. NaN when something is NaN.
  double relative_error(const std::vector<std::int32_t>& sequences) const;
  double bytes() const;  // that one run reads and writes, at least
  double flops() const;

 private:
  void fill_cache();
  void fill_queries();
  void prepare_rows();
  void run_rows(Stream stream, int copy) const;
  const std::int32_t* table(int copy) const;
  std::int32_t parts_max() const;
  std::vector<float> latents_of(std::int32_t sequence) const;
  std::vector<float> query_of(std::int32_t sequence, int head) const;

  MlaProblemOptions options_;
  PagedSequences sequences_;
  ScheduledWork work_;
  DeviceMemory pages_, table_, lengths_, q_, q_tiles_, out_;
  DeviceMemory rows_, positions_, partials_, partial_stats_;  // as rows
};

}  // namespace tandem::cuda
