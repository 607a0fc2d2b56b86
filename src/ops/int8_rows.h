// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Activations as int8 products take them: a signed code for each column and one factor for each row and group of 32
// columns, the block of most quantised weights. Plain code that says what kernels have to make, bit for bit.
#pragma once

#include <cstdint>

namespace tandem {

inline constexpr std::int64_t kInt8Group = 32;

// The least value that counts as the largest of a group, so that a group of zeros has a factor, too.
inline constexpr float kInt8LargestMin = 1e-30f;

// With m = max(largest |x| of group g, kInt8LargestMin): codes = x · (127 / m) to nearest even, scales[g] = m · (1 /
// 127). A group with NaN or an infinity has codes of 0 and the factor NaN. columns: whole groups.
void round_row_to_int8(const float* x, std::int64_t columns, std::int8_t* codes, float* scales);

}  // namespace tandem
