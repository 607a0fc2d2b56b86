// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Words by which blocks of a kernel tell each other what they have written. For words of the whole machine see
// system_word.cuh.
#pragma once

namespace tandem::ptx {

// What this warp has written before, if its lanes have come together, is there for whoever acquires the sum.
__device__ inline void add_release(unsigned* word, unsigned value) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}
__device__ inline unsigned load_acquire_in_gpu(const unsigned* word) {
  unsigned found;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(found) : "l"(word) : "memory");
  return found;
}

}  // namespace tandem::ptx
