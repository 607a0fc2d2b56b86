// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A block a row. Bound by memory: 256 rows of 7,168 from eight GPUs are 33 MB.
#include <cuda_bf16.h>

#include "base/check.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/split/add_partials.h"
#include "ops/cuda/split/seal.cuh"

namespace tandem::cuda {

namespace {

constexpr int kThreads = 256;

struct alignas(16) Eight {
  __nv_bfloat162 pair[4];
};

__device__ inline void add(float (&sum)[8], const Eight& x) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 v = __bfloat1622float2(x.pair[i]);
    sum[2 * i] += v.x;
    sum[2 * i + 1] += v.y;
  }
}

__global__ void __launch_bounds__(kThreads) add_partials(const __grid_constant__ AddPartials op) {
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  const std::size_t row = static_cast<std::size_t>(blockIdx.x) * op.columns,
                    pitch = static_cast<std::size_t>(op.rows) * op.columns;
  for (int i = static_cast<int>(threadIdx.x); i < op.columns / 8; i += kThreads) {
    float sum[8] = {};
    add(sum, reinterpret_cast<const Eight*>(op.own + row)[i]);
    for (int n = 0; n < op.neighbours; ++n) add(sum, reinterpret_cast<const Eight*>(op.arrived + n * pitch + row)[i]);
    Eight y;
#pragma unroll
    for (int j = 0; j < 4; ++j) y.pair[j] = __floats2bfloat162_rn(sum[2 * j], sum[2 * j + 1]);
    reinterpret_cast<Eight*>(op.out + row)[i] = y;
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) write_seal(op.seal);
}

}  // namespace

void run(const AddPartials& op, Stream stream) {
  if (op.rows == 0) return;
  TANDEM_CHECK(op.columns % 8 == 0, "columns of partial sums");
  launch_dependent(add_partials, dim3(static_cast<unsigned>(op.rows)), kThreads, 0, stream, op);
}

}  // namespace tandem::cuda
