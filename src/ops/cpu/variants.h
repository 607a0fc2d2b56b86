// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Which kernels run on this machine.
#pragma once

#include <string>

#include "ops/cpu/kernels.h"

namespace tandem::cpu {

struct ChosenKernels {
  std::string name;
  const Kernels* kernels;
};

// variant is "auto" for the best one. Throws Error as make_cpu_backend does.
ChosenKernels choose_kernels(const std::string& variant);

}  // namespace tandem::cpu
