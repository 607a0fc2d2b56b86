// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What is rounded to E4M3: activations as FP8 products take them, with one factor for each row and group of 128
// columns, and keys and values of an FP8 cache, with one for each head of a token. Plain code that backends share,
// since the codes must be the same everywhere.
#pragma once

#include <cstdint>

namespace tandem {

inline constexpr std::int64_t kF8Group = 128;

constexpr std::int64_t f8_groups(std::int64_t columns) {
  return (columns + kF8Group - 1) / kF8Group;
}

// scales[g] = max(largest |x| of group g, 1e-10) / 448; codes = x / scale, rounded to nearest even. NaN stays NaN.
void quantise_row(const float* x, std::int64_t columns, std::uint8_t* codes, float* scales);
// out = code · scale.
void widen_row(const std::uint8_t* codes, const float* scales, std::int64_t columns, float* out);

// The scale of a head whose largest magnitude is this: largest / 448, at least 1e-30, rounded up to eight significant
// bits; 1 for a head of zeros. So code · scale is exact in f32, and stays what it is when it is rounded again.
float kv_scale(float largest);
// codes = x / scale, rounded to nearest even; NaN is 0x7f. Returns the scale.
float quantise_head(const float* x, std::int64_t dim, std::uint8_t* codes);

}  // namespace tandem
