// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the GPU can do at best, measured: the yardsticks of the kernel benchmark.
#pragma once

#include <string>

namespace tandem::cuda {

struct GpuLimits {
  std::string gpu;
  int clock_mhz = 0;  // the most that its multiprocessors do
  double read_bytes_per_second = 0;
  double fp8_flops_per_second = 0;  // E4M3 products of tiles that stay in shared memory
  double bf16_flops_per_second = 0;
};

// Throws kUnavailable when there is no usable GPU, or none was built for.
GpuLimits measure_gpu_limits();            // of the one that this thread works on
GpuLimits measure_gpu_limits(int device);  // which the thread works on from now on

}  // namespace tandem::cuda
