// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Benchmarks of a GPU in a build without CUDA.
#include "base/error.h"
#include "ops/cuda/bench/gpu_limits.h"
#include "ops/cuda/bench/gpu_state.h"
#include "ops/cuda/bench/kernel_bench.h"
#include "ops/cuda/device.h"

namespace tandem::cuda {

GpuLimits measure_gpu_limits() {
  throw Error(ErrorCode::kUnavailable, why_unusable(look_at_device()));
}

GpuLimits measure_gpu_limits(int device) {
  throw Error(ErrorCode::kUnavailable, why_unusable(look_at_device(device)));
}

GpuState read_gpu_state() {
  return {};
}

void bench_kernels(const KernelBenchOptions&, const KernelBenchObserver&) {
  throw Error(ErrorCode::kUnavailable, why_unusable(look_at_device()));
}

}  // namespace tandem::cuda
