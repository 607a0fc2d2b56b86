// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a slice measured, for people and for programs.
#pragma once

#include <string>

#include "slice/slice.h"

namespace tandem {

// A few lines: the load, each side's stage beside its floor, bubbles, the step, tokens per second.
std::string slice_text(const SliceReport& report);
// The same as one object on one line.
std::string slice_json(const SliceReport& report);

// What AFD gains or loses beside a baseline without sides, each at its own batch.
std::string comparison_text(const SliceReport& best, const SliceReport& baseline);

}  // namespace tandem
