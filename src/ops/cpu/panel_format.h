// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How each weight type lies in a panel of 32 output columns. k runs slowest, so that a vector load takes one k of
// neighbouring columns; quantised types come in blocks of k with the scales of all 32 columns in front.
//
//   plain   [k][32]
//   BF16    words [k / 2, upwards][32] of two successive k, the lower first; the last of an odd k has a zero
//   F8      blocks of 128 k, the last one perhaps shorter: f32 scale[32], then [k][32]
//   Q8_0    f16 d[32], then words [8][32] of four int8: of every eight k first 0, 2, 4, 6, then 1, 3, 5, 7
//   Q4_0    f16 d[32], then words [4][32]: eight nibbles of successive k, lowest first
//   Q4_1    f16 d[32], f16 m[32], then the same words
//   Q4_K    f16 d[32], f16 m[32], the 12 bytes of scales and minima as [12][32]; then 8 groups of 32 k: words [4][32]
//   Q5_K    the same front; then 8 groups of 32 k: words [32] of fifth bits; words [4][32]
//   Q6_K    f16 d[32], int8 scales [16][32]; then 16 groups of 16 k: words [32] of sixteen bit pairs; words [2][32]
//
// The order of k is that of nibbles which are taken out of a word four at a time, into four bytes: even ones of its
// eight, then the odd ones. Upper bits lie so that those of four such nibbles are as far apart: byte b has those of
// nibble 2b and 2b + 1 of each word, lowest word first.
//
// A panel takes as many bytes as 32 rows of the file, and those scales, and those zeros.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/weight.h"

namespace tandem::cpu {

bool has_panel_format(DType dtype);
std::size_t panel_bytes(DType dtype, std::int64_t k);

// Copies row `packed_row` of a part, k values, into column `column` of a panel.
void place_row(const WeightPart& part, std::int64_t packed_row, std::int64_t k, std::int64_t column, std::byte* panel);
// Copies rows first, first + 1, … of a part into a panel: 32, or as many as it has left.
void place_rows(const WeightPart& part, std::int64_t first, std::int64_t k, std::byte* panel);
// The inverse of place_row, widening.
void take_row(DType dtype, const std::byte* panel, std::int64_t k, std::int64_t column, float* out);

}  // namespace tandem::cpu
