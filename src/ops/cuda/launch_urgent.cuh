// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Launching small kernels that others wait for: the FP8 products have nearly all of a multiprocessor (12 warps of 168
// registers, 200 of 227 KB of shared memory; gemm/fp8_gemm.cuh) for as long as they take.
#pragma once

#include "ops/cuda/launch.cuh"

namespace tandem::cuda {

// As launch_dependent, and where multiprocessors become free, blocks of this kernel come before those of others. Shared
// memory is cut as the products want it, which cannot be changed while they run.
template <class Op>
void launch_urgent(void (*kernel)(Op), dim3 grid, int threads, std::size_t shared_bytes, cudaStream_t stream,
                   const Op& op) {
  TANDEM_CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
  int least = 0, greatest = 0;
  TANDEM_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributePriority;
  attributes[1].val.priority = greatest;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  TANDEM_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, op));
}

}  // namespace tandem::cuda
