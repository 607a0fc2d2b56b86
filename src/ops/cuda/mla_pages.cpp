// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// PagedAttention over MLA pages: queries into tiles, then attention, as many rows at a time as there is room for.
#include <algorithm>

#include "ops/cuda/attention/mla_attention.h"
#include "ops/cuda/row_attention.cuh"

namespace tandem::cuda {

void attend_mla_pages(Machine& machine, const PagedAttention& op) {
  const MlaUnits units{op.heads};
  const std::int64_t rows = op.q.rows(), of_row = units.of_row();
  const std::int32_t parts_max = parts_of_row<MlaAttention>(op);
  const std::int64_t at_once = std::clamp<std::int64_t>(kPartsOfLaunchMax / (of_row * parts_max), 1, rows);
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
    MlaAttention attention{.units = units, .q_tiles = tiles};
    set_rows(attention, machine, op, first, count, partials, parts);
    run(attention, machine.stream);
  }
}

}  // namespace tandem::cuda
