// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <cuda_runtime.h>

#include <cstdlib>

#include "ops/cuda/device.h"

namespace tandem::cuda {

namespace {

bool answered(cudaError_t answer, DeviceFacts& facts) {
  if (answer == cudaSuccess) return true;
  if (answer != cudaErrorNoDevice) facts.error = cudaGetErrorString(answer);
  (void)cudaGetLastError();  // forgotten here, not met by the next call
  return false;
}

// The driver and how many GPUs there are; false: there is no more to ask for.
bool look_at_machine(DeviceFacts& facts) {
  // Streams that wait for each other must not share one of the hardware's queues. CUDA reads this when it starts.
  (void)setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  facts.built = true;
  if (cudaDriverGetVersion(&facts.driver_version) != cudaSuccess) facts.driver_version = 0;
  return facts.driver_version >= kDriverVersionMin && answered(cudaGetDeviceCount(&facts.devices), facts) &&
         facts.devices > 0;
}

// The thread works on the device that it looks at.
void look_closer(DeviceFacts& facts) {
  cudaDeviceProp properties;
  if (!answered(cudaGetDeviceProperties(&properties, facts.device), facts)) return;
  facts.name = properties.name;
  facts.major = properties.major;
  facts.minor = properties.minor;
  facts.multiprocessors = properties.multiProcessorCount;
  if (facts.major == 9) answered(cudaMemGetInfo(&facts.bytes_free, &facts.bytes_total), facts);
}

}  // namespace

DeviceFacts look_at_device() {
  DeviceFacts facts;
  if (look_at_machine(facts) && answered(cudaGetDevice(&facts.device), facts)) look_closer(facts);
  return facts;
}

DeviceFacts look_at_device(int device) {
  DeviceFacts facts;
  facts.device = device;
  if (look_at_machine(facts) && device < facts.devices && answered(cudaSetDevice(device), facts)) look_closer(facts);
  return facts;
}

}  // namespace tandem::cuda
