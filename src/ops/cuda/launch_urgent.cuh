// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Launching small kernels that others wait for: the FP8 products have nearly all of a multiprocessor (12 warps of 168
// registers, 200 of 227 KB of shared memory; gemm/fp8_gemm.cuh) for as long as they take.
#pragma once

#include "ops/cuda/launch.cuh"

namespace tandem::cuda {

// As launch_dependent, before other kernels' blocks. Shared memory is cut as the products want it, which cannot be
// changed while they run.
template <class Op>
void launch_urgent(void (*kernel)(Op), dim3 grid, int threads, std::size_t shared_bytes, cudaStream_t stream,
                   const Op& op) {
  TANDEM_CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
  DependentLaunch launch(grid, threads, shared_bytes, stream);
  launch.set_urgent();
  launch.run(kernel, op);
}

}  // namespace tandem::cuda
