// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// WGMMA of bf16 operands, 16 of k, for products: c = a · bᵀ (+ c), both from shared memory, K-major. The number of
// columns is twice that of a thread's accumulators; wgmma.cuh says which are whose.
#pragma once

#include "ops/cuda/ptx/wgmma.cuh"
#include "ops/cuda/ptx/wgmma_operands.cuh"

namespace tandem::ptx {

__device__ inline void wgmma_bf16(float (&c)[12], Descriptor a, Descriptor b, bool accumulate) {
  TANDEM_WGMMA(MEMORY, "m64n24k16.f32.bf16.bf16", TANDEM_PLACES_12, "%12", "%13", "%14", "1, 1, 0, 0", TANDEM_SUMS_8(0),
               TANDEM_SUMS_4(8));
}

__device__ inline void wgmma_bf16(float (&c)[24], Descriptor a, Descriptor b, bool accumulate) {
  TANDEM_WGMMA(MEMORY, "m64n48k16.f32.bf16.bf16", TANDEM_PLACES_24, "%24", "%25", "%26", "1, 1, 0, 0",
               TANDEM_SUMS_16(0), TANDEM_SUMS_8(16));
}

__device__ inline void wgmma_bf16(float (&c)[48], Descriptor a, Descriptor b, bool accumulate) {
  TANDEM_WGMMA(MEMORY, "m64n96k16.f32.bf16.bf16", TANDEM_PLACES_48, "%48", "%49", "%50", "1, 1, 0, 0",
               TANDEM_SUMS_32(0), TANDEM_SUMS_16(32));
}

__device__ inline void wgmma_bf16(float (&c)[96], Descriptor a, Descriptor b, bool accumulate) {
  TANDEM_WGMMA(MEMORY, "m64n192k16.f32.bf16.bf16", TANDEM_PLACES_96, "%96", "%97", "%98", "1, 1, 0, 0",
               TANDEM_SUMS_64(0), TANDEM_SUMS_32(64));
}

}  // namespace tandem::ptx
