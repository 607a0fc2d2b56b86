// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/int8_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tandem {

void round_row_to_int8(const float* x, std::int64_t columns, std::int8_t* codes, float* scales) {
  for (std::int64_t begin = 0; begin < columns; begin += kInt8Group, x += kInt8Group, codes += kInt8Group) {
    if (!std::all_of(x, x + kInt8Group, [](float value) { return std::isfinite(value); })) {
      std::fill_n(codes, kInt8Group, std::int8_t{0});
      scales[begin / kInt8Group] = std::numeric_limits<float>::quiet_NaN();
      continue;
    }
    float largest = kInt8LargestMin;
    for (std::int64_t c = 0; c < kInt8Group; ++c) largest = std::max(largest, std::abs(x[c]));
    const float inverse = 127.0f / largest;
    for (std::int64_t c = 0; c < kInt8Group; ++c) codes[c] = static_cast<std::int8_t>(std::nearbyint(x[c] * inverse));
    scales[begin / kInt8Group] = largest * (1.0f / 127);
  }
}

}  // namespace tandem
