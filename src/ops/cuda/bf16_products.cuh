// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Products whose weights are bf16 in tiles, by gemm/bf16_gemm: what MatMul and GroupedMatMul do where they can.
#pragma once

#include "ops/cuda/machine.cuh"

namespace tandem::cuda {

// False, with nothing done, where the weights are not bf16 in tiles or slices do not begin where parts can.
bool multiply_bf16(Machine& machine, const MatMul& op);
bool multiply_bf16(Machine& machine, const GroupedMatMul& op);

}  // namespace tandem::cuda
