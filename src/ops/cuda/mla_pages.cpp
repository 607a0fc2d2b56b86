// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// PagedAttention over MLA pages: queries into tiles, then attention, as many rows at a time as there is room for.
#include <algorithm>

#include "base/check.h"
#include "ops/cuda/attention/mla_attention.h"
#include "ops/cuda/cuda_kv_cache.cuh"

namespace tandem::cuda {

namespace {

constexpr std::int64_t kPartsMax = 2048;      // of a launch's rows, 65 KiB each beside 72 of their queries
constexpr std::int32_t kPartsOfRowMax = 400;  // that the merge has room for

}  // namespace

void attend_mla_pages(Machine& machine, const PagedAttention& op) {
  const CudaKvCache& cache = of(op.cache);
  const MlaUnits units{op.heads};
  const std::int64_t rows = op.q.rows(), of_row = units.of_row();
  const auto parts_max =
      static_cast<std::int32_t>(divide_up<std::int64_t>(op.block_table.shape[1], MlaAttention::kPartPages));
  TANDEM_CHECK(parts_max <= kPartsOfRowMax, "contexts of over 400 Ki tokens");
  const std::int64_t at_once = std::clamp<std::int64_t>(kPartsMax / (of_row * parts_max), 1, rows);
  const std::int64_t tile_bytes = at_once * of_row * MlaPage::kBytes;
  const std::int64_t parts = parts_max > 1 ? at_once * of_row * parts_max : 0;
  std::byte* memory = machine.workspace(static_cast<std::size_t>(tile_bytes) +
                                        static_cast<std::size_t>(parts) * kMlaPartFloats * sizeof(float));
  auto* tiles = reinterpret_cast<std::uint8_t*>(memory);
  float* partials = reinterpret_cast<float*>(memory + tile_bytes);
  for (std::int64_t first = 0; first < rows; first += at_once) {
    const auto count = static_cast<std::int32_t>(std::min(at_once, rows - first));
    run(MlaQueries{.units = units,
                   .tiles = tiles,
                   .q = op.q.as<const float>() + first * op.q.row_stride,
                   .q_stride = op.q.row_stride,
                   .rows = count},
        machine.stream);
    run(MlaAttention{.units = units,
                     .out = op.out.as<float>() + first * op.out.row_stride,
                     .out_stride = op.out.row_stride,
                     .q_tiles = tiles,
                     .pages = reinterpret_cast<const std::uint8_t*>(cache.layer(op.layer)),
                     .page_stride = static_cast<std::int64_t>(cache.block_bytes()),
                     .block_table = op.block_table.as<const std::int32_t>(),
                     .table_stride = op.block_table.row_stride,
                     .sequences = op.sequences.as<const std::int32_t>() + first,
                     .positions = op.positions.as<const std::int32_t>() + first,
                     .rows = count,
                     .parts_max = parts_max,
                     .window = op.window,
                     .scale = op.scale,
                     .blocks = machine.multiprocessors,
                     .partials = partials,
                     .partial_stats = partials + parts * static_cast<std::int64_t>(kDecodePartialFloats)},
        machine.stream);
  }
}

}  // namespace tandem::cuda
