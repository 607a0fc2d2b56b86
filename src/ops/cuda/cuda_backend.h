// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The backend for Hopper GPUs. Arithmetic is f32 as on the CPU, with one order per sum whatever the number of rows: the
// bits of a row never depend on its neighbours. Weights stay in the type they were stored in; types that the kernels do
// not read are widened to f32 when they are packed.
//
// One backend is one stream of one GPU; a process may have several backends, on several GPUs. A thread that calls a
// backend works on its GPU from then on, as far as CUDA keeps that per thread. run() returns before the work is done,
// except Sample, whose result is for the host.
#pragma once

#include <memory>

#include "ops/backend.h"

namespace tandem {

// Which of the backends of one GPU goes first where both have kernels to start: what is in the background has the
// multiprocessors that others leave.
enum class GpuPriority { kForeground, kBackground };

// Throws Error{kUnsupported} with the reason when this machine or build cannot (ops/cuda/device.h), kInvalidArgument
// for a GPU that it does not have.
std::unique_ptr<Backend> make_cuda_backend(int device = 0, GpuPriority priority = GpuPriority::kForeground);

}  // namespace tandem
