// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <cuda_runtime.h>

#include <cstdlib>

#include "ops/cuda/device.h"

namespace tandem::cuda {

DeviceFacts look_at_device() {
  // Streams that wait for each other must not share one of the hardware's queues. CUDA reads this when it starts.
  (void)setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  DeviceFacts facts;
  facts.built = true;
  if (cudaDriverGetVersion(&facts.driver_version) != cudaSuccess) facts.driver_version = 0;
  if (facts.driver_version < kDriverVersionMin) return facts;
  const auto ask = [&](cudaError_t answer) {
    if (answer == cudaSuccess) return true;
    if (answer != cudaErrorNoDevice) facts.error = cudaGetErrorString(answer);
    (void)cudaGetLastError();  // forgotten here, not met by the next call
    return false;
  };
  if (!ask(cudaGetDeviceCount(&facts.devices)) || facts.devices == 0) return facts;
  int device = 0;
  cudaDeviceProp properties;
  if (!ask(cudaGetDevice(&device)) || !ask(cudaGetDeviceProperties(&properties, device))) return facts;
  facts.name = properties.name;
  facts.major = properties.major;
  facts.minor = properties.minor;
  facts.multiprocessors = properties.multiProcessorCount;
  if (facts.major == 9) ask(cudaMemGetInfo(&facts.bytes_free, &facts.bytes_total));
  return facts;
}

}  // namespace tandem::cuda
