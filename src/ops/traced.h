// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A backend that tells a sink what ran and how long it took, for profiles and benchmarks.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "base/clock.h"
#include "ops/backend.h"

namespace tandem {

struct OperatorTrace {
  std::string_view name;
  std::int64_t rows;
  std::int64_t n = 0, k = 0;  // of the weight, or of each of several; 0 where there is none
  Work work;
  Nanoseconds begin, end;
};

using TraceSink = std::function<void(const OperatorTrace&)>;

// The sink is called on the thread that calls run(), after each operator has finished. clock must outlive the backend.
std::unique_ptr<Backend> make_traced_backend(std::unique_ptr<Backend> inner, const Clock& clock, TraceSink sink);

}  // namespace tandem
