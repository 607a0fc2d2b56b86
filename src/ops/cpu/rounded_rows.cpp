// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/rounded_rows.h"

namespace tandem::cpu {

RowPlace rounded_row(std::byte* rounded, std::int64_t columns, std::int64_t rows, std::int64_t i) {
  std::int64_t first = i / kRoundedTileRows * kRoundedTileRows;
  int size = kRoundedTileRows;
  while (size > rows - first || i >= first + size) {
    if (size <= rows - first) first += size;
    size /= 2;
  }
  return {rounded + first * rounded_row_bytes(columns), size, static_cast<int>(i - first)};
}

}  // namespace tandem::cpu
