// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Rows are quantised into the tiles that the FP8 products read: 128 columns of a row by a warp, or by the four lanes
// that have them in a tensor core's accumulators.
#pragma once

#include <cstdint>

#include "ops/cuda/gemm/fp8_tile.h"
#include "ops/cuda/ptx/e4m3.cuh"
#include "ops/cuda/quad.cuh"
#include "ops/cuda/reduce.cuh"

namespace tandem::cuda {

// Of 128 columns of a row, by the largest magnitude in them. The inverse of the least scale is a number.
struct Fp8Scale {
  float scale, inverse;
  __device__ explicit Fp8Scale(float largest)
      : scale(largest > 0 ? fmaxf(largest / ptx::kMaxE4m3, 1e-30f) : 1.f), inverse(1.f / scale) {}
};

// Where quantised rows go: tiles, and scales [columns / 128][rows]; rows is a multiple of 64.
struct Fp8Rows {
  std::uint8_t* tiles;
  float* scales;
  std::int64_t rows;

  // Of the tile, where a row's column of a block is.
  __device__ std::uint8_t* at(int row, int block, int column) const {
    const std::size_t tile = static_cast<std::size_t>(block) * (rows / Fp8Tile::kRows) + row / Fp8Tile::kRows;
    return tiles + tile * Fp8Tile::kBytes + Fp8Tile::offset(row % Fp8Tile::kRows, column);
  }

  // Columns 128 block + 4 lane and three more of a row. All lanes of the warp.
  __device__ void store(int row, int block, float4 x) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const Fp8Scale s(warp_max(fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)))));
    *reinterpret_cast<std::uint32_t*>(at(row, block, 4 * lane)) =
        ptx::to_e4m3(x.x * s.inverse, x.y * s.inverse, x.z * s.inverse, x.w * s.inverse);
    if (lane == 0) scales[block * rows + row] = s.scale;
  }

  // Columns 128 block + 8 j + 2 quad and the next, j from 0 to 15, of a row that is there or not. All lanes of the
  // warp, whose quads have rows of their own.
  __device__ void store_quad(int row, int block, const float (&x)[32], bool there) const {
    const int quad = static_cast<int>(threadIdx.x) & 3;
    float largest = 0;
#pragma unroll
    for (int i = 0; i < 32; ++i) largest = fmaxf(largest, fabsf(x[i]));
    const Fp8Scale s(quad_max(largest));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      std::uint32_t w[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* y = &x[16 * half + 4 * i];
        w[i] = ptx::to_e4m3(y[0] * s.inverse, y[1] * s.inverse, y[2] * s.inverse, y[3] * s.inverse);
      }
      transpose_in_quad(w);
      const uint2 first = lower_halves(w), second = upper_halves(w);
      if (there)
        *reinterpret_cast<uint4*>(at(row, block, 64 * half + 16 * quad)) =
            make_uint4(first.x, first.y, second.x, second.y);
    }
    if (there && quad == 0) scales[block * rows + row] = s.scale;
  }
};

}  // namespace tandem::cuda
