// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Memory in use, for tests that want it flat. Sanitizers keep freed memory for a while, so under them it is what the
// program itself has not freed; elsewhere what the system holds for the process.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/settings/machine.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TANDEM_SANITIZED 1
#elif defined(__has_feature)  // clang's way of telling
#define TANDEM_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define TANDEM_SANITIZED 0
#endif

#if TANDEM_SANITIZED
extern "C" std::size_t __sanitizer_get_current_allocated_bytes();
#endif

namespace tandem {

inline std::int64_t used_memory_bytes() {
#if TANDEM_SANITIZED
  return static_cast<std::int64_t>(__sanitizer_get_current_allocated_bytes());
#else
  return resident_memory_bytes();
#endif
}

}  // namespace tandem
