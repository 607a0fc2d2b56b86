// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A warp quantises 128 columns of a row into the tile that the FP8 products read.
#pragma once

#include <cstdint>

#include "ops/cuda/gemm/fp8_tile.h"
#include "ops/cuda/ptx/e4m3.cuh"
#include "ops/cuda/reduce.cuh"

namespace tandem::cuda {

// Where quantised rows go: tiles, and scales [columns / 128][rows]; rows is a multiple of 64.
struct Fp8Rows {
  std::uint8_t* tiles;
  float* scales;
  std::int64_t rows;

  // Columns 128 block + 4 lane and three more of a row. All lanes of the warp.
  __device__ void store(int row, int block, float4 x) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const float largest = warp_max(fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w))));
    const float scale = largest > 0 ? largest / ptx::kMaxE4m3 : 1.f;
    const std::size_t tile = static_cast<std::size_t>(block) * (rows / Fp8Tile::kRows) + row / Fp8Tile::kRows;
    *reinterpret_cast<std::uint32_t*>(tiles + tile * Fp8Tile::kBytes +
                                      Fp8Tile::offset(row % Fp8Tile::kRows, 4 * lane)) =
        ptx::to_e4m3(x.x / scale, x.y / scale, x.z / scale, x.w / scale);
    if (lane == 0) scales[block * rows + row] = scale;
  }
};

}  // namespace tandem::cuda
