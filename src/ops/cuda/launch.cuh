// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Launching kernels, and what to do when CUDA says no: a failed launch is a bug of ours and stops the program.
#pragma once

#include <cuda_runtime.h>

#include "base/check.h"

#define TANDEM_CUDA_CHECK(call)                                                     \
  do {                                                                              \
    const cudaError_t error = (call);                                               \
    if (error != cudaSuccess) [[unlikely]]                                          \
      ::tandem::check_failed(__FILE__, __LINE__, #call, cudaGetErrorString(error)); \
  } while (false)

namespace tandem::cuda {

// May start while the kernel before it in the stream still runs: the kernel calls ptx::wait_for_previous_kernel()
// before it touches memory.
template <class Op>
void launch_dependent(void (*kernel)(Op), dim3 grid, int threads, std::size_t shared_bytes, cudaStream_t stream,
                      const Op& op) {
  if (shared_bytes > 48 * 1024)
    TANDEM_CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  TANDEM_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, op));
}

}  // namespace tandem::cuda
