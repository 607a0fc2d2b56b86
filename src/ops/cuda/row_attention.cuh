// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How PagedAttention becomes MfaAttention or MlaAttention, which take rows alike.
#pragma once

#include "base/check.h"
#include "ops/cuda/attention/decode_merge.h"
#include "ops/cuda/cuda_kv_cache.cuh"

namespace tandem::cuda {

inline constexpr std::int64_t kPartsOfLaunchMax = 2048;  // of all its rows, 65 KiB each

// Parts of the longest context that the block table has room for.
template <class RowAttention>
std::int32_t parts_of_row(const PagedAttention& op) {
  constexpr std::int32_t kMergedMax = 400;  // whose weights are 100 KiB of the merge's shared memory
  const auto parts =
      static_cast<std::int32_t>(divide_up<std::int64_t>(op.block_table.shape[1], RowAttention::kPartPages));
  TANDEM_CHECK(parts <= kMergedMax, "contexts of over 400 Ki tokens");
  return parts;
}

// Fills in what both have, for rows [first, first + count); partials has room for so many parts.
template <class RowAttention>
void set_rows(RowAttention& a, const Machine& machine, const PagedAttention& op, std::int64_t first, std::int64_t count,
              float* partials, std::int64_t parts) {
  const CudaKvCache& cache = of(op.cache);
  a.out = op.out.as<float>() + first * op.out.row_stride;
  a.out_stride = op.out.row_stride;
  a.pages = reinterpret_cast<const std::uint8_t*>(cache.layer(op.layer));
  a.page_stride = static_cast<std::int64_t>(cache.block_bytes());
  a.block_table = op.block_table.as<const std::int32_t>();
  a.table_stride = op.block_table.row_stride;
  a.sequences = op.sequences.as<const std::int32_t>() + first;
  a.positions = op.positions.as<const std::int32_t>() + first;
  a.rows = static_cast<std::int32_t>(count);
  a.parts_max = parts_of_row<RowAttention>(op);
  a.window = op.window;
  a.scale = op.scale;
  a.blocks = machine.multiprocessors;
  a.partials = partials;
  a.partial_stats = partials + parts * static_cast<std::int64_t>(kDecodePartialValues);
}

}  // namespace tandem::cuda
