// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bench/gpu_state.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

namespace tandem::cuda {

namespace {

// The part of NVML's interface that is used, as its documentation declares it: 0 is success, a device is a handle.
using Device = struct NvmlDevice*;
constexpr int kClockOfMultiprocessors = 1;

struct Nvml {
  int (*handle_by_bus_id)(const char*, Device*) = nullptr;
  int (*clock_info)(Device, int, unsigned*) = nullptr;
  int (*power_usage)(Device, unsigned*) = nullptr;  // milliwatts
};

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
}

// Stays loaded: the program's end is soon enough.
Nvml load() {
  Nvml nvml;
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return nvml;
  int (*init)() = nullptr;
  find(library, "nvmlInit_v2", init);
  if (init == nullptr || init() != 0) return nvml;
  find(library, "nvmlDeviceGetHandleByPciBusId_v2", nvml.handle_by_bus_id);
  find(library, "nvmlDeviceGetClockInfo", nvml.clock_info);
  find(library, "nvmlDeviceGetPowerUsage", nvml.power_usage);
  return nvml;
}

}  // namespace

GpuState read_gpu_state() {
  static const Nvml nvml = load();
  GpuState state;
  if (nvml.handle_by_bus_id == nullptr) return state;
  int ordinal = 0;
  char bus_id[32];
  Device device = nullptr;
  if (cudaGetDevice(&ordinal) != cudaSuccess || cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, ordinal) != cudaSuccess) {
    (void)cudaGetLastError();
    return state;
  }
  if (nvml.handle_by_bus_id(bus_id, &device) != 0) return state;
  unsigned value = 0;
  if (nvml.clock_info != nullptr && nvml.clock_info(device, kClockOfMultiprocessors, &value) == 0)
    state.clock_mhz = static_cast<int>(value);
  if (nvml.power_usage != nullptr && nvml.power_usage(device, &value) == 0) state.watts = 1e-3 * value;
  return state;
}

}  // namespace tandem::cuda
