// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Activations as FP8 products take them: E4M3 with one factor for each row and group of 128 columns. Plain code that
// backends share, since the codes must be the same everywhere.
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

}  // namespace tandem
