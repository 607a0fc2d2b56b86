// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the thread's GPU does just now, by its driver's management library (NVML), which is looked for at run time.
#pragma once

namespace tandem::cuda {

struct GpuState {
  int clock_mhz = 0;  // of its multiprocessors
  double watts = 0;
};

// Zeros for what the machine does not tell. Any thread.
GpuState read_gpu_state();

}  // namespace tandem::cuda
