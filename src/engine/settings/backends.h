// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The backends that this build has, by name.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "ops/backend.h"
#include "ops/cuda/device.h"

namespace tandem {

// name: "reference", "cpu" or "cuda"; variant and threads are for cpu, gpu for cuda. Throws Error{kInvalidArgument}
// naming those there are, Error{kUnsupported} with the reason when this machine or build cannot run it.
std::unique_ptr<Backend> make_backend(const std::string& name, const std::string& variant, std::int32_t threads,
                                      std::int32_t gpu = 0);
// Memory that weights, KV and activations of such a backend can have; none when nobody knows.
std::optional<std::int64_t> backend_memory_bytes(const std::string& name, std::int32_t gpu = 0);
// The same of a GPU that was looked at; none where there is no usable one.
std::optional<std::int64_t> gpu_memory_bytes(const cuda::DeviceFacts& facts);

}  // namespace tandem
