// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Rows in f32 on their way into MLA attention: queries into tiles, latents into pages. A thread has eight columns.
// Reads and writes each byte once; bound by launch and latency at decode sizes.
#include "ops/cuda/attention/mla_attention.h"
#include "ops/cuda/bf16.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"

namespace tandem::cuda {

namespace {

constexpr int kThreads = MlaPage::kWidth / 8;  // for a row
constexpr int kHeadsOfBlock = 4;

struct Eight {
  float x[8];

  // A row may begin anywhere.
  __device__ void load(const float* from) {
    if (reinterpret_cast<std::uintptr_t>(from) % 16 == 0) {
      *reinterpret_cast<float4*>(x) = reinterpret_cast<const float4*>(from)[0];
      *reinterpret_cast<float4*>(x + 4) = reinterpret_cast<const float4*>(from)[1];
      return;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = from[i];
  }
  __device__ void store(std::uint8_t* to) const {
    *reinterpret_cast<uint4*>(to) = make_uint4(to_bf16_pair(x[0], x[1]), to_bf16_pair(x[2], x[3]),
                                               to_bf16_pair(x[4], x[5]), to_bf16_pair(x[6], x[7]));
  }
  // What rounding to bf16 leaves over.
  __device__ Eight rest() const {
    Eight rest;
#pragma unroll
    for (int i = 0; i < 8; ++i) rest.x[i] = x[i] - __bfloat162float(to_bf16(x[i]));
    return rest;
  }
};

// Grid: (rows · units, a tile's heads / kHeadsOfBlock).
__global__ void __launch_bounds__(kThreads* kHeadsOfBlock) store_queries(const __grid_constant__ MlaQueries op) {
  const auto at = static_cast<std::int32_t>(blockIdx.x);  // row and unit
  const std::int32_t row = at / op.units.of_row(), unit = at % op.units.of_row();
  const int head = static_cast<int>(blockIdx.y) * kHeadsOfBlock + static_cast<int>(threadIdx.x) / kThreads;
  const int dim = 8 * (static_cast<int>(threadIdx.x) % kThreads);
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  Eight eight{};
  if (head < op.units.heads(unit))
    eight.load(op.q + row * op.q_stride + (op.units.first_head(unit) + head) * MlaPage::kWidth + dim);
  std::uint8_t* tile = op.tiles + static_cast<std::size_t>(at) * MlaPage::kBytes;
  eight.store(tile + MlaPage::offset(MlaUnits::row(head), dim));
  eight.rest().store(tile + MlaPage::offset(MlaUnits::row(head) + MlaUnits::kTermRows, dim));
}

// Grid: rows.
__global__ void __launch_bounds__(kThreads) store_latents(const __grid_constant__ MlaAppend op) {
  const auto row = static_cast<std::int32_t>(blockIdx.x);
  const int dim = 8 * static_cast<int>(threadIdx.x);
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  const std::int32_t slot = op.slots[row];
  Eight eight;
  eight.load(op.latent + row * op.latent_stride + dim);
  eight.store(op.pages + static_cast<std::size_t>(slot / MlaPage::kTokens) * op.page_stride +
              MlaPage::offset(slot % MlaPage::kTokens, dim));
}

}  // namespace

void run(const MlaQueries& op, Stream stream) {
  if (op.rows == 0) return;
  const dim3 grid(static_cast<unsigned>(op.rows * op.units.of_row()), MlaUnits::kHeads / kHeadsOfBlock);
  launch_dependent(store_queries, grid, kThreads * kHeadsOfBlock, 0, stream, op);
}

void run(const MlaAppend& op, Stream stream) {
  if (op.rows == 0) return;
  launch_dependent(store_latents, dim3(static_cast<unsigned>(op.rows)), kThreads, 0, stream, op);
}

}  // namespace tandem::cuda
