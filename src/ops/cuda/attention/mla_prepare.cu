// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Grid: (rows, 129): 128 heads' queries, then the row of the cache. A thread stores 16 bytes, eight columns.
#include <cuda_bf16.h>

#include "ops/cuda/attention/mla_prepare.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"

namespace tandem::cuda {

namespace {

constexpr int kThreads = MlaPage::kWidth / 8;

__device__ void store_row(std::uint8_t* image, int row, const float* from) {
  const int dim = 8 * static_cast<int>(threadIdx.x);
  alignas(16) __nv_bfloat162 x[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) x[i] = __floats2bfloat162_rn(from[dim + 2 * i], from[dim + 2 * i + 1]);
  *reinterpret_cast<uint4*>(image + MlaPage::offset(row, dim)) = *reinterpret_cast<const uint4*>(x);
}

__global__ void __launch_bounds__(kThreads) prepare(const __grid_constant__ MlaPrepare op) {
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  const auto row = static_cast<std::int64_t>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y);
  if (head == static_cast<int>(gridDim.y) - 1) {
    const std::int32_t slot = op.slots[row];
    store_row(op.pages + slot / MlaPage::kTokens * op.page_stride, slot % MlaPage::kTokens,
              op.latent + row * op.latent_stride);
    return;
  }
  store_row(op.q_tiles + row * MlaPage::kQueryBytes + head / 64 * MlaPage::kBytes, head % 64,
            op.q + row * op.q_stride + head * MlaPage::kWidth);
}

}  // namespace

void run(const MlaPrepare& op, Stream stream) {
  if (op.rows == 0) return;
  const unsigned heads = op.q == nullptr ? 0 : MlaPage::kHeads;
  launch_dependent(prepare, dim3(static_cast<unsigned>(op.rows), heads + 1), kThreads, 0, stream, op);
}

}  // namespace tandem::cuda
