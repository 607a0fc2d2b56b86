// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One block a row, whose values stay in registers: a warp has every eighth block of 128 columns, four columns in a
// lane. Bound by launch and latency at decode sizes; reads and writes each byte once.
#include <cuda_bf16.h>

#include "base/check.h"
#include "ops/cuda/gemm/fp8_store.cuh"
#include "ops/cuda/gemm/norm_quantise.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"

namespace tandem::cuda {

namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kBlocksOfWarp = NormQuantise::kColumnsMax / Fp8Tile::kDepth / kWarps;

// Column 128 (warp + 8 i) + 4 lane and three more.
struct Row {
  float4 x[kBlocksOfWarp];

  __device__ static int block(int i) { return static_cast<int>(threadIdx.x) / 32 + kWarps * i; }
  __device__ static int column(int i) { return block(i) * Fp8Tile::kDepth + static_cast<int>(threadIdx.x) % 32 * 4; }

  // All loads first: a store between them would make each wait for the last.
  __device__ void load(const NormQuantise& op, int row) {
    float* residual = op.residual == nullptr ? nullptr : op.residual + static_cast<std::size_t>(row) * op.columns;
    const std::uint16_t* delta = op.delta == nullptr ? nullptr : op.delta + row * op.delta_stride;
#pragma unroll
    for (int i = 0; i < kBlocksOfWarp; ++i) {
      const bool has = column(i) < op.columns && residual != nullptr;
      x[i] = has ? *reinterpret_cast<const float4*>(residual + column(i)) : float4{};
    }
    if (delta == nullptr) return;
    for (int d = 0; d < op.deltas; ++d) add(delta + d * op.delta_pitch, op.columns);
    if (residual == nullptr) return;
#pragma unroll
    for (int i = 0; i < kBlocksOfWarp; ++i)
      if (column(i) < op.columns) *reinterpret_cast<float4*>(residual + column(i)) = x[i];
  }

  __device__ void add(const std::uint16_t* delta, std::int32_t columns) {
    uint2 bits[kBlocksOfWarp];
#pragma unroll
    for (int i = 0; i < kBlocksOfWarp; ++i)
      bits[i] = column(i) < columns ? *reinterpret_cast<const uint2*>(delta + column(i)) : uint2{};
#pragma unroll
    for (int i = 0; i < kBlocksOfWarp; ++i) {
      const float2 a = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&bits[i].x));
      const float2 b = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&bits[i].y));
      x[i] = make_float4(x[i].x + a.x, x[i].y + a.y, x[i].z + b.x, x[i].w + b.y);
    }
  }

  __device__ float sum_of_squares() const {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kBlocksOfWarp; ++i)
      sum += x[i].x * x[i].x + x[i].y * x[i].y + x[i].z * x[i].z + x[i].w * x[i].w;
    return sum;
  }
};

__global__ void __launch_bounds__(kThreads) norm_quantise(const __grid_constant__ NormQuantise op) {
  __shared__ float sums[kWarps];
  const int row = static_cast<int>(blockIdx.x);
  float4 gain[kBlocksOfWarp];
#pragma unroll
  for (int i = 0; i < kBlocksOfWarp; ++i)
    gain[i] = Row::column(i) < op.columns ? *reinterpret_cast<const float4*>(op.gain + Row::column(i)) : float4{};
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  Row r;
  r.load(op, row);
  const float sum = block_sum<kThreads>(r.sum_of_squares(), sums);
  const Fp8Rows to{op.tiles, op.scales, op.tile_rows};
  const float factor = rsqrtf(sum / static_cast<float>(op.columns) + op.epsilon);
#pragma unroll
  for (int i = 0; i < kBlocksOfWarp; ++i) {
    if (Row::column(i) >= op.columns) break;
    const float4 y = make_float4(r.x[i].x * factor * gain[i].x, r.x[i].y * factor * gain[i].y,
                                 r.x[i].z * factor * gain[i].z, r.x[i].w * factor * gain[i].w);
    to.store(row, Row::block(i), y);
    if (op.normed != nullptr) {
      const __nv_bfloat162 pairs[] = {__floats2bfloat162_rn(y.x, y.y), __floats2bfloat162_rn(y.z, y.w)};
      *reinterpret_cast<uint2*>(op.normed + static_cast<std::size_t>(row) * op.columns + Row::column(i)) =
          *reinterpret_cast<const uint2*>(pairs);
    }
  }
}

}  // namespace

void run(const NormQuantise& op, Stream stream) {
  if (op.rows == 0) return;
  TANDEM_CHECK(op.columns % Fp8Tile::kDepth == 0 && op.columns <= NormQuantise::kColumnsMax, "columns of a norm");
  launch_dependent(norm_quantise, dim3(static_cast<unsigned>(op.rows)), kThreads, 0, stream, op);
}

}  // namespace tandem::cuda
