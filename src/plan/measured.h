// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Efficiencies, and times of whole stages, out of what `tandem bench kernels --json` measured: nothing is fitted. A
// row's efficiency is the larger of its fractions of bandwidth and of FLOPs, which is the roofline's time over the
// measured one.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "plan/decode_model.h"

namespace tandem {

struct MeasuredKernel {
  std::string kernel;         // "mfa-decode-fp8"
  std::vector<double> shape;  // numbers of "128 x 4096"
  double microseconds = 0, bytes = 0, flops = 0;
  double fraction_of_bandwidth = 0, fraction_of_flops = 0;

  double efficiency() const { return std::max(fraction_of_bandwidth, fraction_of_flops); }
};

struct KernelMeasurements {
  std::string gpu;
  double read_bytes_per_second = 0, fp8_flops_per_second = 0, bf16_flops_per_second = 0;
  double clock_mhz = 0;  // the highest; 0: not known
  std::vector<MeasuredKernel> kernels;
  // Of --stages: whose (a name that find_shape knows), and each kernel at each batch.
  std::string stage_model;
  std::vector<StageKernel> stages;
};

// The lines that the benchmark prints. what names the source in messages. Throws Error{kInvalidData}.
KernelMeasurements parse_kernel_measurements(std::string_view lines, const std::string& what);

// For a model's attention at a context, its projections and its experts, from the measured shapes that are nearest.
// projection and ffn of the same file; what it has no row for stays ideal and is named in missing.
struct MeasuredEfficiency {
  Efficiency efficiency;
  std::vector<std::string> used;     // "attention 0.78 (mfa-decode-fp8 128 x 4096)"
  std::vector<std::string> missing;  // "experts"
};
MeasuredEfficiency measured_efficiency(const KernelMeasurements& measured, const ModelShape& shape, DType kv,
                                       std::int64_t context);

// The measured stages of a model: null, and why in the note, when there are none, they are another model's, or its
// cache has another type. Throws Error{kInvalidData} when a stage is not whole; what names the source.
struct MeasuredStages {
  std::shared_ptr<const StageLadders> ladders;
  std::string note;  // "every kernel, 14 batches from 8 to 256 rows"
};
MeasuredStages measured_stages(const KernelMeasurements& measured, const ModelShape& shape, DType kv,
                               const std::string& what);

// The hardware with the rates that were measured in place of its data sheet's.
Hardware with_measured_rates(const Hardware& hardware, const KernelMeasurements& measured);

}  // namespace tandem
