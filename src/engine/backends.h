// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The backends that this build has, by name.
#pragma once

#include <memory>
#include <string>

#include "ops/backend.h"

namespace tandem {

// name: "reference" or "cpu"; variant and threads are for cpu. Throws Error{kInvalidArgument} naming those there are.
std::unique_ptr<Backend> make_backend(const std::string& name, const std::string& variant, std::int32_t threads);

}  // namespace tandem
