// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// SHA-256 as FIPS 180-4 describes it, to compare tensors with recorded digests. For tests only: plain and slow.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace tandem {

std::string sha256_hex(std::span<const std::byte> data);

}  // namespace tandem
