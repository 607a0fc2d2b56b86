// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The backends that this build has, by name.
#pragma once

#include <memory>
#include <string>

#include "ops/backend.h"

namespace tandem {

// name: "reference", "cpu" or "cuda"; variant and threads are for cpu, gpu for cuda. Throws Error{kInvalidArgument}
// naming those there are, Error{kUnsupported} with the reason when this machine or build cannot run it.
std::unique_ptr<Backend> make_backend(const std::string& name, const std::string& variant, std::int32_t threads,
                                      std::int32_t gpu = 0);
// Memory that weights, KV and activations of such a backend can have; 0 when nobody knows.
std::int64_t backend_memory_bytes(const std::string& name, std::int32_t gpu = 0);

}  // namespace tandem
