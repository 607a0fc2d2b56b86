// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A slice in a program that was built without CUDA.
#include "base/error.h"
#include "ops/cuda/device.h"
#include "slice/hand_over_time.h"
#include "slice/slice.h"
#include "slice/stage_bench.h"

namespace tandem {

SliceReport measure_slice(const SliceOptions&, const cuda::GpuLimits&) {
  throw Error(ErrorCode::kUnavailable, cuda::why_unusable(cuda::look_at_device()));
}

HandOverReport measure_hand_overs(const HandOverOptions&) {
  throw Error(ErrorCode::kUnavailable, cuda::why_unusable(cuda::look_at_device()));
}

void measure_batches(const SliceOptions& options, std::span<const SliceBatch>, const cuda::GpuLimits& limits,
                     const SliceObserver&) {
  measure_slice(options, limits);
}

SliceReport best_slice(const SliceOptions& options, const SliceSearch&, const cuda::GpuLimits& limits,
                       const std::function<void(const SliceReport&)>&) {
  return measure_slice(options, limits);
}

void bench_stages(const StageBenchOptions&, const std::function<void(const StageTime&)>&) {
  throw Error(ErrorCode::kUnavailable, cuda::why_unusable(cuda::look_at_device()));
}

}  // namespace tandem
