// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A backend that adds up the work of what it runs and waits for nothing, so that a benchmark times what users get.
#pragma once

#include <functional>
#include <memory>

#include "ops/backend.h"

namespace tandem {

// Called on the thread that calls run(). Of a step that is replayed it is told the work of the step that was recorded.
using WorkSink = std::function<void(const Work&)>;

std::unique_ptr<Backend> make_metered_backend(std::unique_ptr<Backend> inner, WorkSink sink);

}  // namespace tandem
