// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Where rows lie that are rounded for int8 products: in tiles, as kernels.h says. Rows and tiles are in order and
// nothing is between them, so row i begins a tile at i rows' bytes, or belongs to one that began before.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cpu/kernels.h"

namespace tandem::cpu {

constexpr std::int64_t rounded_row_bytes(std::int64_t columns) {
  return columns / kRoundedBlock * kRoundedBlockBytes;
}

// The place of row i of some rows, the first of which begins a tile at rounded.
RowPlace rounded_row(std::byte* rounded, std::int64_t columns, std::int64_t rows, std::int64_t i);

}  // namespace tandem::cpu
