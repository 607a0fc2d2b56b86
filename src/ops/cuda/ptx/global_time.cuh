// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A clock of the whole GPU: nanoseconds, the same for all multiprocessors.
#pragma once

#include <cstdint>

namespace tandem::ptx {

__device__ inline std::uint64_t global_time() {
  std::uint64_t now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)::"memory");
  return now;
}

}  // namespace tandem::ptx
