// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One GPU of a deployment without two sides (SliceDeployment::expert_parallel_gpus): attention for its own sequences,
// then the experts that it has for everybody's tokens. What AFD is compared with.
//
// Micro-batches are chains of their own, each a CUDA graph a step: while one exchanges rows, another multiplies. What
// the GPU sends to all others and gets from them goes to and comes from the other GPU's memory, both at once; who it
// waits for is left out, but its experts are those of the GPU that has most to do in each layer.
#pragma once

#include <memory>
#include <vector>

#include "ops/cuda/peer/devices.h"
#include "ops/cuda/peer/recorded_work.h"
#include "slice/attention_side.h"
#include "slice/ffn_side.h"
#include "slice/slice.h"

namespace tandem {

class ExpertParallelSlice {
 public:
  // Throws as measure_slice does.
  explicit ExpertParallelSlice(const SliceOptions& options);
  // The same deployment's, with other rows, micro-batches or steps. Where it throws, for memory, it can be asked for
  // others.
  void take(const SliceOptions& options);

  StepTimes measure(int steps);
  std::uint32_t mismatches() const { return attention_->mismatches() + ffn_->mismatches(); }
  std::int32_t expert_rows_max() const { return ffn_->expert_rows_max(); }
  double gigabytes() const { return gigabytes_; }

 private:
  struct Lane {
    cuda::WorkStream work, down;
    cuda::RecordedWork step;
  };
  void give_rows();
  void give_exchange_memory();
  void record(std::int32_t m);
  void hold_link(std::int64_t bytes, cuda::Stream stream) const;

  SliceOptions options_;
  SliceLoad load_;
  bool has_rows_ = false;  // not where there was no memory for them
  double gigabytes_ = 0;
  std::unique_ptr<AttentionSide> attention_;
  std::unique_ptr<FfnSide> ffn_;
  std::vector<Lane> lanes_;
  cuda::DeviceMemory out_, rows_in_, results_in_;  // on the other GPU, if there is one
  cuda::DeviceMemory link_free_at_;
};

}  // namespace tandem
