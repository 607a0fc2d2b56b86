// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// 32 bytes a thread, in two stores of 16: a block has 8 KB, so that 1 MiB is stored by nearly all multiprocessors at
// once. Bound by latency up to that, then by the link.
#include "base/check.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/peer/pass_rows.h"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/ptx/global_time.cuh"

namespace tandem::cuda {

namespace {

constexpr int kThreads = 256, kVectors = 2;

__device__ inline uint4 next(uint4 x) {
  return {x.x + 1, x.y + 1, x.z + 1, x.w + 1};
}

__global__ void __launch_bounds__(kThreads) pass_rows(const __grid_constant__ PassRows op) {
  ptx::wait_for_previous_kernel();
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    op.times[*op.round] = ptx::global_time();
    ++*op.round;
  }
  if (op.words == 1) {
    if (threadIdx.x == 0) *op.to = __ldcg(op.from) + 1;
    return;
  }
  const auto* from = reinterpret_cast<const uint4*>(op.from);
  auto* to = reinterpret_cast<uint4*>(op.to);
  const std::int64_t first = std::int64_t{blockIdx.x} * kThreads * kVectors + threadIdx.x;
  uint4 x[kVectors];
#pragma unroll
  for (int i = 0; i < kVectors; ++i)
    if (first + i * kThreads < op.words / 4) x[i] = __ldcg(&from[first + i * kThreads]);
#pragma unroll
  for (int i = 0; i < kVectors; ++i)
    if (first + i * kThreads < op.words / 4) to[first + i * kThreads] = next(x[i]);
}

}  // namespace

void run(const PassRows& op, Stream stream) {
  TANDEM_CHECK(op.words == 1 || op.words % 4 == 0, "rows of single words");
  constexpr std::int64_t kBlockWords = 4 * kThreads * kVectors;
  launch_dependent(pass_rows, dim3(static_cast<unsigned>((op.words + kBlockWords - 1) / kBlockWords)), kThreads, 0,
                   stream, op);
}

}  // namespace tandem::cuda
