// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The ring of stages by which one thread of a block feeds warps that multiply.
#pragma once

#include <cstdint>

#include "ops/cuda/ptx/mbarrier.cuh"

namespace tandem::cuda {

// A stage is full when its bytes have arrived, which the feeding thread announces, and free when all readers, warps,
// have let it go. All threads of the block.
template <int kStages>
__device__ inline void init_ring(std::uint64_t (&full)[kStages], std::uint64_t (&free)[kStages], int readers) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      ptx::init_barrier(&full[i], 1);
      ptx::init_barrier(&free[i], readers);
    }
    ptx::publish_barriers();
  }
  __syncthreads();
}

}  // namespace tandem::cuda
