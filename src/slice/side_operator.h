// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One kernel of a side's step, or a few that belong together, under the name that a benchmark prints.
#pragma once

#include <functional>

#include "ops/cuda/stream.h"

namespace tandem {

struct SideOperator {
  const char* name;
  std::function<void(cuda::Stream stream)> run;  // enqueues it; may be recorded
};

// Of a kernel that is one struct of tandem::cuda, which is copied.
template <class Op>
SideOperator side_operator(const char* name, const Op& op) {
  return {name, [op](cuda::Stream stream) { run(op, stream); }};
}

}  // namespace tandem
