// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <cuda_bf16.h>

#include "ops/cuda/gemm/fp8_quantise.h"
#include "ops/cuda/gemm/fp8_store.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"

namespace tandem::cuda {

namespace {

constexpr int kQuantiseThreads = 256;

constexpr int kBlocksOfWarp = 4;  // of 128 columns

// A warp for four times 128 columns of a row, four of each in a lane.
template <class T>
__global__ void __launch_bounds__(kQuantiseThreads) quantise_tiles(const __grid_constant__ QuantiseTiles op) {
  struct alignas(4 * sizeof(T)) Four {
    T x[4];
  };
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  const int lane = threadIdx.x % 32, blocks = op.columns / Fp8Tile::kDepth;
  const int row = op.to ? op.to[blockIdx.y] : blockIdx.y, source = op.from ? op.from[blockIdx.y] : blockIdx.y;
  const std::int64_t stride = op.x_stride > 0 ? op.x_stride : op.columns;
  const int first = (blockIdx.x * (kQuantiseThreads / 32) + threadIdx.x / 32) * kBlocksOfWarp;
  const T* from = static_cast<const T*>(op.x) + source * stride + 4 * lane;
  const bool aligned = reinterpret_cast<std::uintptr_t>(op.x) % sizeof(Four) == 0 && stride % 4 == 0;
  const Fp8Rows to{op.tiles, op.scales, op.tile_rows};
  Four four[kBlocksOfWarp];
#pragma unroll
  for (int i = 0; i < kBlocksOfWarp; ++i) {
    if (first + i >= blocks) continue;
    const T* x = from + (first + i) * Fp8Tile::kDepth;
    if (aligned)
      four[i] = *reinterpret_cast<const Four*>(x);
    else
      for (int c = 0; c < 4; ++c) four[i].x[c] = x[c];
  }
#pragma unroll
  for (int i = 0; i < kBlocksOfWarp; ++i) {
    const int block = first + i;
    if (block >= blocks) return;
    const T* x = four[i].x;
    to.store(row, block,
             make_float4(static_cast<float>(x[0]), static_cast<float>(x[1]), static_cast<float>(x[2]),
                         static_cast<float>(x[3])));
  }
}

// A block a tile, 16 bytes at a time.
__global__ void __launch_bounds__(256) pack_weight(const __grid_constant__ PackFp8Weight op) {
  ptx::wait_for_previous_kernel();
  const int k_tile = blockIdx.x, block = blockIdx.y, k_tiles = op.k / Fp8Tile::kDepth;
  const std::size_t to = static_cast<std::size_t>(k_tile) * (op.n / Fp8Tile::kWeightRows) + block;
  for (int i = threadIdx.x; i < Fp8Tile::kWeightBytes / 16; i += 256) {
    const int row = i / 8, chunk = i % 8;
    const uint4 x = *reinterpret_cast<const uint4*>(op.weight + static_cast<std::size_t>(block * 128 + row) * op.k +
                                                    k_tile * 128 + chunk * 16);
    *reinterpret_cast<uint4*>(op.packed + to * Fp8Tile::kWeightBytes + Fp8Tile::offset(row, chunk * 16)) = x;
  }
  if (threadIdx.x == 0) op.packed_scales[block * k_tiles + k_tile] = op.scales[block * k_tiles + k_tile];
}

}  // namespace

void run(const QuantiseTiles& op, Stream stream) {
  if (op.rows == 0) return;
  constexpr int kBlocks = kQuantiseThreads / 32 * kBlocksOfWarp;
  const dim3 grid(static_cast<unsigned>((op.columns / Fp8Tile::kDepth + kBlocks - 1) / kBlocks),
                  static_cast<unsigned>(op.rows));
  launch_dependent(op.bf16 ? quantise_tiles<__nv_bfloat16> : quantise_tiles<float>, grid, kQuantiseThreads, 0, stream,
                   op);
}

void run(const PackFp8Weight& op, Stream stream) {
  const dim3 grid(static_cast<unsigned>(op.k / Fp8Tile::kDepth), static_cast<unsigned>(op.n / Fp8Tile::kWeightRows));
  launch_dependent(pack_weight, grid, 256, 0, stream, op);
}

}  // namespace tandem::cuda
