// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Rows of a file into the columns of a panel, all of them at once: packing a weight is then bound by memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "ops/cpu/kernels.h"

namespace tandem::cpu {

using PanelRows = std::array<const std::byte*, kPanelColumns>;

// Element i of rows[c] becomes element i · kPanelColumns + c of out, for i below k. Elements have 1, 2 or 4 bytes, and
// need not be aligned.
void transpose_rows(const PanelRows& rows, std::int64_t k, std::size_t element_bytes, std::byte* out);

}  // namespace tandem::cpu
