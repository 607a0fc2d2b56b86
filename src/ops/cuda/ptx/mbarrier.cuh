// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Barriers in shared memory that count arrivals and bytes. A wait names the parity of the phase that must have ended:
// phase n has parity n & 1, so whoever waits must pass every phase, or parity tells a lie.
#pragma once

#include <cstdint>

namespace tandem::ptx {

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

__device__ inline void init_barrier(std::uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals));
}

// After the last init_barrier, before the barriers are shared with other threads and the copy engine.
__device__ inline void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ inline void arrive(std::uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// A warp arrives once, for all its lanes. compute-sanitizer's racecheck follows threads, and not what __syncwarp
// orders: for it every lane arrives (cmake -DTANDEM_EVERY_LANE_ARRIVES=ON).
#ifdef TANDEM_EVERY_LANE_ARRIVES
inline constexpr int kArrivalsOfWarp = 32;
#else
inline constexpr int kArrivalsOfWarp = 1;
#endif

// Of a barrier at which so many warps arrive.
__device__ inline void init_barrier_of_warps(std::uint64_t* barrier, int warps) {
  init_barrier(barrier, warps * kArrivalsOfWarp);
}

// After what the warp's lanes did with shared memory.
__device__ inline void arrive_as_warp(std::uint64_t* barrier) {
  __syncwarp();
  if (kArrivalsOfWarp == 32 || threadIdx.x % 32 == 0) arrive(barrier);
}

__device__ inline void arrive_expecting(std::uint64_t* barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

// Announces bytes without arriving.
__device__ inline void expect(std::uint64_t* barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

__device__ inline void wait(std::uint64_t* barrier, std::uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra ended;\nbra again;\nended:\n}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

}  // namespace tandem::ptx
