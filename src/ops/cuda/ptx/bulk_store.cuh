// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The way back of bulk_copy.cuh: contiguous bytes from shared into global memory, of this or of another GPU.
#pragma once

#include <cstdint>

#include "ops/cuda/ptx/mbarrier.cuh"

namespace tandem::ptx {

// From shared into global memory; the thread that asked waits for it.
__device__ inline void bulk_store(void* global, const void* shared, std::uint32_t bytes) {
  asm volatile(
      "cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\n"
      "cp.async.bulk.commit_group;" ::"l"(global),
      "r"(shared_address(shared)), "r"(bytes)
      : "memory");
}

// Until shared memory may be written again, or until they are done.
__device__ inline void wait_until_stores_have_read() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

__device__ inline void wait_for_bulk_stores() {
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

}  // namespace tandem::ptx
