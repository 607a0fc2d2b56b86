// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The reference backend: plain loops in f32, one thread. It defines what every operator computes; others are compared
// with it. Weights are widened to f32 at load.
#pragma once

#include <memory>

#include "ops/backend.h"

namespace tandem {

std::unique_ptr<Backend> make_reference_backend();

}  // namespace tandem
