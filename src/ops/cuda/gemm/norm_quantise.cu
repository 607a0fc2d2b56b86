// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One block a row, whose values stay in registers: a warp has every sixteenth block of 128 columns, four columns in a
// lane. Without the norm's factor a block has 1,024 columns of a row, 128 in a warp. Bound by launch and latency at
// decode sizes; reads and writes each byte once.
#include <cuda_bf16.h>

#include "base/check.h"
#include "ops/cuda/gemm/fp8_store.cuh"
#include "ops/cuda/gemm/norm_quantise.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/reduce.cuh"

namespace tandem::cuda {

namespace {

constexpr int kWarps = 16, kBlocksOfRow = NormQuantise::kColumnsMax / Fp8Tile::kDepth / kWarps;
constexpr int kWarpsOfSquare = NormQuantise::kColumnsOfSquare / Fp8Tile::kDepth;

// Column 128 (first + warp + kWarpsOfRow i) + 4 lane and three more.
template <int kWarpsOfRow, int kBlocksOfWarp>
struct Row {
  float4 x[kBlocksOfWarp];
  int first;

  __device__ int block(int i) const { return first + static_cast<int>(threadIdx.x) / 32 + kWarpsOfRow * i; }
  __device__ int column(int i) const { return block(i) * Fp8Tile::kDepth + static_cast<int>(threadIdx.x) % 32 * 4; }

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

__global__ void __launch_bounds__(32 * kWarps) norm_quantise(const __grid_constant__ NormQuantise op) {
  __shared__ float sums[kWarps];
  const int row = static_cast<int>(blockIdx.x);
  Row<kWarps, kBlocksOfRow> r;
  r.first = 0;
  float4 gain[kBlocksOfRow];
#pragma unroll
  for (int i = 0; i < kBlocksOfRow; ++i)
    gain[i] = r.column(i) < op.columns ? *reinterpret_cast<const float4*>(op.gain + r.column(i)) : float4{};
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  r.load(op, row);
  const float sum = block_sum<32 * kWarps>(r.sum_of_squares(), sums);
  const Fp8Rows to{op.tiles, op.scales, op.tile_rows};
  const float factor = rsqrtf(sum / static_cast<float>(op.columns) + op.epsilon);
#pragma unroll
  for (int i = 0; i < kBlocksOfRow; ++i) {
    if (r.column(i) >= op.columns) break;
    const float4 y = make_float4(r.x[i].x * factor * gain[i].x, r.x[i].y * factor * gain[i].y,
                                 r.x[i].z * factor * gain[i].z, r.x[i].w * factor * gain[i].w);
    to.store(row, r.block(i), y);
    if (op.normed != nullptr) {
      const __nv_bfloat162 pairs[] = {__floats2bfloat162_rn(y.x, y.y), __floats2bfloat162_rn(y.z, y.w)};
      *reinterpret_cast<uint2*>(op.normed + static_cast<std::size_t>(row) * op.columns + r.column(i)) =
          *reinterpret_cast<const uint2*>(pairs);
    }
  }
}

// Grid: (rows, parts of their squares).
__global__ void __launch_bounds__(32 * kWarpsOfSquare) quantise_before_norm(const __grid_constant__ NormQuantise op) {
  __shared__ float sums[kWarpsOfSquare];
  const int row = static_cast<int>(blockIdx.x), part = static_cast<int>(blockIdx.y);
  Row<kWarpsOfSquare, 1> r;
  r.first = part * kWarpsOfSquare;
  const bool there = r.column(0) < op.columns;
  const float4 gain = there ? *reinterpret_cast<const float4*>(op.gain + r.column(0)) : float4{};
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  r.load(op, row);
  const float4 x = r.x[0];
  const Fp8Rows to{op.tiles, op.scales, op.tile_rows};
  if (there) to.store(row, r.block(0), make_float4(x.x * gain.x, x.y * gain.y, x.z * gain.z, x.w * gain.w));
  const float sum = block_sum<32 * kWarpsOfSquare>(r.sum_of_squares(), sums);
  if (threadIdx.x == 0) op.squares[part * op.tile_rows + row] = sum;
}

}  // namespace

void run(const NormQuantise& op, Stream stream) {
  if (op.rows == 0) return;
  TANDEM_CHECK(op.columns % Fp8Tile::kDepth == 0 && op.columns <= NormQuantise::kColumnsMax, "columns of a norm");
  const auto rows = static_cast<unsigned>(op.rows);
  if (op.squares == nullptr) return launch_dependent(norm_quantise, dim3(rows), 32 * kWarps, 0, stream, op);
  TANDEM_CHECK(op.normed == nullptr, "rows before a norm have no normed ones");
  const auto parts = static_cast<unsigned>(NormQuantise::square_parts(op.columns));
  launch_dependent(quantise_before_norm, dim3(rows, parts), 32 * kWarpsOfSquare, 0, stream, op);
}

}  // namespace tandem::cuda
