// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the machine could do at best: the yardsticks beside every measured operator.
#pragma once

#include "ops/cpu/cpu_backend.h"

namespace tandem {

struct MachineLimits {
  double read_bytes_per_second;  // streaming memory that no cache holds
  double flops_per_second;       // f32 multiply-adds, two each
};

// Takes about half a second. The same options as for the backend that is to be judged.
MachineLimits measure_machine_limits(const CpuOptions& options);

}  // namespace tandem
