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
// before it touches memory. Blocks come in clusters of so many along x.
template <class Op>
void launch_dependent(void (*kernel)(Op), dim3 grid, int threads, std::size_t shared_bytes, cudaStream_t stream,
                      const Op& op, int cluster = 1) {
  if (shared_bytes > 48 * 1024)
    TANDEM_CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = static_cast<unsigned>(cluster);
  attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = cluster > 1 ? 2 : 1;
  TANDEM_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, op));
}

}  // namespace tandem::cuda
