// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// PagedAttention over MFA pages: queries into tiles, then attention, some rows at a time where their parts need much
// memory.
#include <algorithm>

#include "ops/cuda/attention/mfa_attention.h"
#include "ops/cuda/row_attention.cuh"

namespace tandem::cuda {

namespace {

constexpr std::int64_t kRowsOfLaunchMax = 16384;  // whose units are a grid's y

std::int64_t rounded(std::int64_t bytes) {
  return divide_up<std::int64_t>(bytes, 1024) * 1024;
}

}  // namespace

void attend_mfa_pages(Machine& machine, const PagedAttention& op) {
  const CudaKvCache& cache = of(op.cache);
  const MfaUnits units{op.cache->spec().kv_heads, op.heads / op.cache->spec().kv_heads};
  const std::int64_t rows = op.q.rows(), of_row = units.of_row();
  const std::int32_t parts_max = parts_of_row<MfaAttention>(op);
  const std::int64_t at_once = std::min(
      {rows, std::max<std::int64_t>(1, (parts_max > 1 ? kPartsOfLaunchMax : kRowsOfLaunchMax) / (of_row * parts_max)),
       kRowsOfLaunchMax / of_row});
  const std::int64_t tile_bytes = 2 * mfa_query_term_bytes(*cache.mfa());
  const std::int64_t tiles = rounded(rows * of_row * tile_bytes);
  const std::int64_t scales = rounded(rows * of_row * MfaUnits::kHeads * static_cast<std::int64_t>(sizeof(float)));
  const std::int64_t parts = parts_max > 1 ? at_once * of_row * parts_max : 0;
  std::byte* memory = machine.workspace(static_cast<std::size_t>(tiles + scales) +
                                        static_cast<std::size_t>(parts) * kMfaPartFloats * sizeof(float));
  const MfaQueries queries{.cache = *cache.mfa(),
                           .units = units,
                           .tiles = reinterpret_cast<std::uint8_t*>(memory),
                           .scales = reinterpret_cast<float*>(memory + tiles),
                           .q = op.q.as<const float>(),
                           .q_stride = op.q.row_stride,
                           .rows = static_cast<std::int32_t>(rows)};
  run(queries, machine.stream);
  float* partials = reinterpret_cast<float*>(memory + tiles + scales);
  for (std::int64_t first = 0; first < rows; first += at_once) {
    MfaAttention attention{.cache = *cache.mfa(),
                           .units = units,
                           .q_tiles = queries.tiles + first * of_row * tile_bytes,
                           .q_scales = queries.scales + first * of_row * MfaUnits::kHeads};
    set_rows(attention, machine, op, first, std::min(at_once, rows - first), partials, parts);
    run(attention, machine.stream);
  }
}

}  // namespace tandem::cuda
