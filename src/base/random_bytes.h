// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Random numbers that nobody can guess, from the system. What has to come again in the same way takes base/rng.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tandem {

// Any thread. Throws Error{kOutOfResources} when the system has none to give.
void fill_random(std::span<std::byte> bytes);
std::uint64_t random_number();

}  // namespace tandem
