// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The ring of stages by which one or two lanes of a block feed warps that multiply.
#pragma once

#include <cstdint>

#include "ops/cuda/ptx/mbarrier.cuh"

namespace tandem::cuda {

struct RingUsers {
  int feeders;  // who arrives once a stage
  int readers;  // warps
};

// A stage is full when its bytes have arrived, which the feeders announce, and free when all readers have let it go.
// All threads of the block.
template <int kStages>
__device__ inline void init_ring(std::uint64_t (&full)[kStages], std::uint64_t (&free)[kStages], RingUsers users) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      ptx::init_barrier(&full[i], users.feeders);
      ptx::init_barrier_of_warps(&free[i], users.readers);
    }
    ptx::publish_barriers();
  }
  __syncthreads();
}

}  // namespace tandem::cuda
