// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A trace of a slice as a picture: the JSON that chrome://tracing and Perfetto read.
#pragma once

#include <cstdint>
#include <string>

#include "slice/slice_trace.h"

namespace tandem {

// Of the last steps. Three processes: the attention GPU and the links with a row for each micro-batch, the FFN GPU with
// a row each for gathering, products and sums. Times begin with 0.
std::string slice_timeline(const SliceTrace& trace, std::int32_t steps);

// The same into a file; throws Error{kInvalidArgument} where it cannot be written. Two deployments in one call: the
// last one's.
void write_slice_timeline(const SliceTrace& trace, std::int32_t steps, const std::string& path);

}  // namespace tandem
