// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A random FP8 product on the GPU with its answer from the CPU: what tests and benchmarks of fp8_gemm.h share.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/cuda/device_memory.h"
#include "ops/cuda/gemm/fp8_gemm.h"

namespace tandem::cuda {

// Row row of quantised rows (fp8_tile.h) that are columns wide, times its scales; rows: a multiple of 64.
std::vector<double> fp8_row(const std::vector<std::uint8_t>& tiles, const std::vector<float>& scales, std::int64_t rows,
                            std::int32_t row, std::int32_t columns);

struct Fp8ProblemOptions {
  std::vector<std::int32_t> counts;  // rows of each expert
  std::int32_t rows_max = 0;         // 0: the most of counts
  std::int32_t rows_usual = 0;       // of Fp8Gemm
  std::int32_t n = 0, k = 0;
  bool swiglu = false;      // n is gate and up together
  bool contiguous = false;  // experts behind each other; else rows_max apart
  std::uint32_t seed = 1;
};

class Fp8Problem {
 public:
  explicit Fp8Problem(const Fp8ProblemOptions& options);
  // The second product of an expert: its activations are what first left.
  Fp8Problem(const Fp8ProblemOptions& options, const Fp8Problem& first);

  void run(Stream stream) const { cuda::run(op(), stream); }
  Fp8Gemm op() const;
  // The activations that op() reads, for who makes others.
  std::uint8_t* x_tiles() const { return x_.as<std::uint8_t>(); }
  float* x_scales() const { return x_scales_.as<float>(); }
  void poison_output();
  // ‖result − expected‖ / ‖expected‖ over one row in step of each expert. Expected is computed in double from the
  // operands as they are on the GPU; result is bf16, or hidden values times their scales.
  double relative_error(int step) const;
  std::vector<std::uint16_t> output() const { return out_.download<std::uint16_t>(); }
  Fp8GemmPlan plan() const;
  double bytes() const;
  double flops() const;
  std::int32_t row_begin(int expert) const { return begins_[static_cast<std::size_t>(expert)]; }

 private:
  void lay_out_rows();
  void fill_weight();
  void fill_activations();
  void make_outputs();
  struct Host;
  std::vector<double> expected(const Host& host, int expert, std::int32_t row) const;
  std::vector<double> result(const Host& host, int expert, std::int32_t row) const;

  Fp8ProblemOptions options_;
  std::vector<std::int32_t> begins_;
  std::int64_t rows_ = 0;
  DeviceMemory weight_, weight_scales_, packed_, packed_scales_, x_, x_scales_, begin_memory_, count_memory_;
  DeviceMemory out_, hidden_, hidden_scales_, scratch_;
  const DeviceMemory* x_memory_ = nullptr;
  const DeviceMemory* x_scales_memory_ = nullptr;
};

}  // namespace tandem::cuda
