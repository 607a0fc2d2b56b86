// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A backend that validates every operator before it runs it. For tests and for --check.
#pragma once

#include <memory>

#include "ops/backend.h"

namespace tandem {

std::unique_ptr<Backend> make_checked_backend(std::unique_ptr<Backend> inner);

}  // namespace tandem
