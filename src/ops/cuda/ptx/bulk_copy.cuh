// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The copy engine: contiguous bytes from global to shared memory, reported to a barrier.
#pragma once

#include <cstdint>

#include "ops/cuda/ptx/mbarrier.cuh"

namespace tandem::ptx {

// Sizes and addresses are multiples of 16.
__device__ inline void bulk_load(void* shared, const void* global, std::uint32_t bytes, std::uint64_t* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(shared)),
               "l"(global), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
}

// The same for bytes that nobody reads again soon: they leave the L2 cache first.
__device__ inline void bulk_load_once(void* shared, const void* global, std::uint32_t bytes, std::uint64_t* barrier) {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
}

// To the same place of each block of the cluster whose bit is set in blocks, whose barrier at the same place is told.
__device__ inline void bulk_load_to_blocks(void* shared, const void* global, std::uint32_t bytes,
                                           std::uint64_t* barrier, std::uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], "
      "%4;" ::"r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier)), "h"(blocks)
      : "memory");
}

// Orders this thread's ordinary accesses to shared memory before later ones of the copy engine and the tensor cores.
__device__ inline void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// The same of the GPU's memory: who has written it before it is told of, who loads it after it has been.
__device__ inline void fence_async_proxy_of_memory() {
  asm volatile("fence.proxy.async.global;" ::: "memory");
}

}  // namespace tandem::ptx
