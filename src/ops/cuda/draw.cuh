// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Backend::begin of the CUDA backend.
#pragma once

#include <memory>

#include "ops/backend.h"
#include "ops/cuda/machine.cuh"

namespace tandem::cuda {

std::unique_ptr<Draw> begin(Machine& machine, const Sample& op, const Tensor& ids);

}  // namespace tandem::cuda
