// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What this process may use of the machine.
#pragma once

#include <cstdint>

namespace tandem {

std::int32_t usable_cores();            // that this process may run on
std::int64_t available_memory_bytes();  // free or reclaimable, within the process's own limit; 0 when it cannot be told
std::int64_t resident_memory_bytes();   // of this process now

}  // namespace tandem
