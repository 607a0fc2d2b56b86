// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/f8_rows.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/scalar.h"

namespace tandem {

void quantise_row(const float* x, std::int64_t columns, std::uint8_t* codes, float* scales) {
  for (std::int64_t begin = 0; begin < columns; begin += kF8Group) {
    const std::int64_t end = std::min(begin + kF8Group, columns);
    float largest = 1e-10f;
    for (std::int64_t c = begin; c < end; ++c) largest = std::max(largest, std::abs(x[c]));
    const float scale = largest / kF8E4M3Max;
    scales[begin / kF8Group] = scale;
    for (std::int64_t c = begin; c < end; ++c) codes[c] = f32_to_f8_e4m3(x[c] / scale);
  }
}

float kv_scale(float largest) {
  if (largest == 0) return 1;
  const float scale = std::max(largest / kF8E4M3Max, 1e-30f);
  return std::bit_cast<float>((std::bit_cast<std::uint32_t>(scale) + 0xffffu) & 0xffff0000u);
}

float quantise_head(const float* x, std::int64_t dim, std::uint8_t* codes) {
  float largest = 0;
  for (std::int64_t i = 0; i < dim; ++i) largest = std::max(largest, std::abs(x[i]));
  const float scale = kv_scale(largest);
  for (std::int64_t i = 0; i < dim; ++i) {
    const float value = x[i] / scale;
    codes[i] = std::isnan(value) ? 0x7f : f32_to_f8_e4m3(value);
  }
  return scale;
}

void widen_row(const std::uint8_t* codes, const float* scales, std::int64_t columns, float* out) {
  for (std::int64_t c = 0; c < columns; ++c) out[c] = f8_e4m3_to_f32(codes[c]) * scales[c / kF8Group];
}

}  // namespace tandem
