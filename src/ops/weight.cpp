// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/weight.h"

#include <algorithm>

#include "base/check.h"

namespace tandem {

void read_row(const WeightPart& part, std::int64_t packed_row, std::int64_t k, float* out) {
  const std::int64_t row = part.source_row(packed_row);
  dequantise(part.dtype, part.row(row), static_cast<std::size_t>(k), out);
  if (part.dtype != DType::kF8E4M3) return;
  for (std::int64_t i = 0; i < k; ++i) out[i] *= part.scales.at(row, i);
}

bool is_quantised(const WeightSource& source) {
  return std::ranges::all_of(source.parts, [](const WeightPart& part) { return is_quantised(part.dtype); });
}

std::int64_t width_slice_begin(std::int64_t width, std::int64_t granule, int i) {
  const std::int64_t granules = (width + granule - 1) / granule;
  const std::int64_t begin = granules * i / KSlices::kCountMax * granule;
  return begin < width ? begin : width;
}

KSlices width_slices(std::int64_t width, std::int64_t granule, int first, int count) {
  TANDEM_CHECK(first >= 0 && count > 0 && first + count <= KSlices::kCountMax, "slices outside the width");
  TANDEM_CHECK((count & (count - 1)) == 0 && first % count == 0, "slices are not one whole subtree");
  KSlices slices;
  slices.count = count;
  const std::int64_t origin = width_slice_begin(width, granule, first);
  for (int i = 0; i <= count; ++i)
    slices.bounds[i] = static_cast<std::int32_t>(width_slice_begin(width, granule, first + i) - origin);
  return slices;
}

}  // namespace tandem
