// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The kernel benchmark: each kernel at the shapes that the models have, its time beside what the GPU could do at best,
// and its error beside its speed. Inputs rotate, so that none is found in the L2 cache.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ops/cuda/bench/gpu_limits.h"

namespace tandem::cuda {

struct KernelMeasurement {
  std::string kernel;  // "mfa-decode-fp8"
  std::string shape;   // "128 x 4096"
  double microseconds = 0;
  double bytes = 0, flops = 0;        // that must be moved and done
  double flops_per_second_limit = 0;  // of the type it computes in
  double error = 0;                   // relative; 0 when it has none of its own
  std::string remark;                 // the schedule it ran with
};

struct KernelBenchOptions {
  std::string pattern;  // rows whose kernel or shape has this in it; empty: all
  int samples = 30;
};

struct KernelBenchObserver {
  std::function<void(const GpuLimits&)> on_limits;
  std::function<void(const KernelMeasurement&)> on_row;
};

// Throws Error{kUnavailable} saying what is missing where there is no GPU to use.
void bench_kernels(const KernelBenchOptions& options, const KernelBenchObserver& observer);

}  // namespace tandem::cuda
