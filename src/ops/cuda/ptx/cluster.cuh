// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Blocks of one cluster and each other's shared memory.
#pragma once

#include <cstdint>

#include "ops/cuda/ptx/mbarrier.cuh"

namespace tandem::ptx {

// All threads of all blocks of the cluster.
__device__ inline void sync_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// The same in two halves. A block's shared memory may be written by another only once it has begun.
__device__ inline void arrive_in_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ inline void wait_for_cluster() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Where block rank has what this block has at p.
__device__ inline std::uint32_t address_in_cluster(const void* p, int rank) {
  std::uint32_t address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(p)), "r"(rank));
  return address;
}

// The same as a pointer, for plain loads, stores and atomics.
template <class T>
__device__ T* in_block(T* p, int rank) {
  std::uint64_t address;
  asm volatile("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(p), "r"(rank));
  return reinterpret_cast<T*>(address);
}

__device__ inline int rank_in_cluster() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// At the barrier of another block, or of this one, for what the thread has read: nothing that it wrote is published to
// the cluster, which takes as long as a fence of the whole GPU.
__device__ inline void arrive_in_block(std::uint64_t* barrier, int rank) {
  asm volatile("mbarrier.arrive.release.cta.shared::cluster.b64 _, [%0];" ::"r"(address_in_cluster(barrier, rank))
               : "memory");
}

__device__ inline float4 load_from_cluster(const float4* p, int rank) {
  float4 x;
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
               : "r"(address_in_cluster(p, rank))
               : "memory");
  return x;
}

}  // namespace tandem::ptx
