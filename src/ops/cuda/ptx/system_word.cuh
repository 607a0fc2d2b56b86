// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A word that threads of several GPUs share: what was written before the store is seen after the load that finds it.
#pragma once

#include <cstdint>

namespace tandem::ptx {

__device__ inline void store_release(std::uint32_t* word, std::uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}

__device__ inline void store_release(unsigned long long* word, unsigned long long value) {
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}

__device__ inline std::uint32_t load_acquire(const std::uint32_t* word) {
  std::uint32_t found;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(found) : "l"(word) : "memory");
  return found;
}

__device__ inline unsigned long long load_acquire(const unsigned long long* word) {
  unsigned long long found;
  asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(found) : "l"(word) : "memory");
  return found;
}

}  // namespace tandem::ptx
