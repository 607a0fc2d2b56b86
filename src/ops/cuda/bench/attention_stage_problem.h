// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The attention half of one layer of Step-3 at full size, as a decode step of its A side runs it, with an FP8 cache and
// FP8 weights: from the residual stream with the experts' last result to the FP8 rows that are handed over. The router
// is not in it.
#pragma once

#include <cstdint>

#include "ops/cuda/bench/fp8_problem.h"
#include "ops/cuda/bench/mfa_problem.h"
#include "ops/cuda/device_memory.h"
#include "ops/cuda/gemm/norm_quantise.h"

namespace tandem::cuda {

class AttentionStageProblem {
 public:
  AttentionStageProblem(std::int32_t sequences, std::int32_t tokens);

  void run(Stream stream) const;
  // Of the output projection against the activations that the stage made for it, after run().
  double relative_error() const { return o_.relative_error(sequences_ - 1); }
  // Whether all rows that are handed over were written, with finite scales.
  bool is_complete() const;
  double bytes() const;  // that one run reads and writes, at least
  double flops() const;

 private:
  NormQuantise norm(const std::uint16_t* delta, std::uint8_t* tiles, float* scales) const;

  std::int32_t sequences_;
  std::int64_t tile_rows_;
  Fp8Problem down_, up_, o_;  // q down with k and v; q up; output
  MfaProblem attention_;
  DeviceMemory experts_, residual_, gain_, inv_freq_, squares_, query_squares_, hand_over_, hand_over_scales_;
};

}  // namespace tandem::cuda
