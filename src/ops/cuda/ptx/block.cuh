// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the threads of a block share, said so that the compiler knows it.
#pragma once

#include <cstdint>

#include "ops/cuda/ptx/mbarrier.cuh"

namespace tandem::ptx {

// The kernel's dynamic shared memory, at a multiple of 1 KiB as swizzled tiles want it. Nothing is rounded up:
// arithmetic on the pointer would hide from the compiler that it is shared memory, and such loads take longer.
template <class T>
__device__ inline T& dynamic_shared() {
  extern __shared__ __align__(1024) std::uint8_t dynamic_shared_memory[];
  if (shared_address(dynamic_shared_memory) % 1024 != 0) __trap();
  return *reinterpret_cast<T*>(dynamic_shared_memory);
}

// Which warpgroup this is. Equal in all lanes of a warp, and the compiler sees it: what depends on it is computed once
// for the warp.
__device__ inline int warpgroup() {
  return __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 128, 0);
}
__device__ inline int warp() {
  return __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
}
// Waits for all lanes of the warp; true in one of them, always the same.
__device__ inline bool elect_lane() {
  int elected;
  asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xFFFFFFFF;\nselp.b32 %0, 1, 0, p;\n}" : "=r"(elected));
  return elected != 0;
}

// A barrier of the block's hardware, for threads that take part only: sync waits until so many have arrived.
__device__ inline void sync_threads(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void arrive_threads(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace tandem::ptx
