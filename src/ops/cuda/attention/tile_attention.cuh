// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Attention of tiles of rows over plain bf16 pages whose keys and values are 64 or 128 wide: the heads of Llama and
// Qwen.
#pragma once

#include <cstdint>

#include "ops/cuda/attention_parts.cuh"

namespace tandem::cuda {

// Rows [first, first + count) of one sequence; count 0: none.
struct RowTile {
  std::int32_t first, count;
};

// Rows of a sequence are neighbours. Parts go to a.scratch, or where there is none are merged and written to a.out.
// list: device memory of shape.tiles RowTiles, if they are listed. Throws Error when a launch fails.
void attend_tiles(const Attention& a, const Pages<__nv_bfloat16>& pages, std::int64_t rows, const TileShape& shape,
                  RowTile* list, cudaStream_t stream);

}  // namespace tandem::cuda
