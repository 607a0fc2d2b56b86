// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The folder in a build without CUDA.
#include "base/error.h"
#include "ops/cuda/cuda_backend.h"
#include "ops/cuda/device.h"

namespace tandem {

cuda::DeviceFacts cuda::look_at_device() {
  return {};
}

cuda::DeviceFacts cuda::look_at_device(int device) {
  DeviceFacts facts;
  facts.device = device;
  return facts;
}

std::unique_ptr<Backend> make_cuda_backend(int, GpuPriority) {
  throw Error(ErrorCode::kUnsupported, "no CUDA here: " + cuda::why_unusable(cuda::look_at_device()));
}

}  // namespace tandem
