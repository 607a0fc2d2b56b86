// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A block a row. Bound by memory: 256 rows of 7,168 from eight GPUs are 33 MB.
#include "base/check.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/split/add_partials.h"
#include "ops/cuda/split/eight_bf16.cuh"
#include "ops/cuda/split/seal.cuh"

namespace tandem::cuda {

namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) add_partials(const __grid_constant__ AddPartials op) {
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  const std::size_t row = static_cast<std::size_t>(blockIdx.x) * op.columns,
                    pitch = static_cast<std::size_t>(op.rows) * op.columns;
  for (int i = static_cast<int>(threadIdx.x); i < op.columns / 8; i += kThreads) {
    float sum[8] = {};
    add(sum, reinterpret_cast<const EightBf16*>(op.own + row)[i], 1);
    for (int n = 0; n < op.neighbours; ++n)
      add(sum, reinterpret_cast<const EightBf16*>(op.arrived + n * pitch + row)[i], 1);
    reinterpret_cast<EightBf16*>(op.out + row)[i] = rounded(sum);
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
