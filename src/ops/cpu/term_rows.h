// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Where rows lie that are cut into terms, for products by AMX: in groups, as kernels.h says. Rows and groups are in
// order and nothing is between them, so row i begins a group at i rows' bytes, or belongs to one that began before.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ops/cpu/kernels.h"

namespace tandem::cpu {

// The place of row i of some rows of so many blocks, the first of which begins a group at terms.
inline RowPlace term_row(std::byte* terms, std::int64_t blocks, std::int64_t rows, std::int64_t i) {
  const std::int64_t first = i / kTermGroupRows * kTermGroupRows;
  const std::int64_t size = std::min<std::int64_t>(rows - first, kTermGroupRows);
  return {terms + first * blocks * kTermBlockBytes, static_cast<int>(size), static_cast<int>(i - first)};
}

}  // namespace tandem::cpu
