// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/settings/backends.h"

#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "engine/settings/machine.h"
#include "ops/cpu/cpu_backend.h"
#include "ops/cuda/cuda_backend.h"
#include "ops/reference/reference_backend.h"

namespace tandem {

std::unique_ptr<Backend> make_backend(const std::string& name, const std::string& variant, std::int32_t threads,
                                      std::int32_t gpu) {
  if (name == "reference") return make_reference_backend();
  if (name == "cpu") return make_cpu_backend({.threads = threads, .variant = variant});
  if (name == "cuda") return make_cuda_backend(gpu);
  throw Error(ErrorCode::kInvalidArgument,
              format("backend is \"{}\", there are: cpu, cuda, reference (--device)", name));
}

std::optional<std::int64_t> backend_memory_bytes(const std::string& name, std::int32_t gpu) {
  if (name == "cuda") return gpu_memory_bytes(cuda::look_at_device(gpu));
  const std::int64_t available = available_memory_bytes();
  return available > 0 ? std::optional(available) : std::nullopt;
}

std::optional<std::int64_t> gpu_memory_bytes(const cuda::DeviceFacts& facts) {
  // What the kernels themselves, their scratch and the activations of a step take is not asked for one by one.
  constexpr std::int64_t kReserve = std::int64_t{2} << 30;
  if (facts.bytes_total == 0) return std::nullopt;
  return std::max(static_cast<std::int64_t>(facts.bytes_free) - kReserve, std::int64_t{0});
}

}  // namespace tandem
