// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <cstring>

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/machine.cuh"

namespace tandem::cuda {

void need(cudaError_t result, const char* doing) {
  if (result == cudaSuccess) return;
  (void)cudaGetLastError();
  const ErrorCode code = result == cudaErrorMemoryAllocation ? ErrorCode::kOutOfResources : ErrorCode::kInternal;
  throw Error(code, format("cuda, {}: {}", doing, cudaGetErrorString(result)));
}

Buffer allocate_device(std::size_t bytes) {
  if (bytes == 0) return {};
  void* data = nullptr;
  if (cudaMalloc(&data, bytes) != cudaSuccess) {
    (void)cudaGetLastError();
    std::size_t free = 0, total = 0;
    (void)cudaMemGetInfo(&free, &total);
    throw Error(ErrorCode::kOutOfResources, format("the GPU has no {} MiB of memory to give: {} of {} MiB are free",
                                                   bytes >> 20, free >> 20, total >> 20));
  }
  return Buffer(data, bytes, [](void* p, std::size_t) { cudaFree(p); });
}

Buffer allocate_pinned(std::size_t bytes) {
  if (bytes == 0) return {};
  void* data = nullptr;
  if (cudaHostAlloc(&data, bytes, cudaHostAllocPortable | cudaHostAllocMapped) != cudaSuccess) {
    (void)cudaGetLastError();
    throw Error(ErrorCode::kOutOfResources, format("the machine has no {} MiB of pinned memory to give", bytes >> 20));
  }
  std::memset(data, 0, bytes);
  return Buffer(data, bytes, [](void* p, std::size_t) { cudaFreeHost(p); });
}

}  // namespace tandem::cuda
