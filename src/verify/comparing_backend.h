// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The decorator behind OperatorComparison.
#pragma once

#include <memory>

#include "ops/backend.h"

namespace tandem {

class OperatorComparison;

std::unique_ptr<Backend> make_comparing_backend(std::unique_ptr<Backend> inner, OperatorComparison& comparison);

}  // namespace tandem
