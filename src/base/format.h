// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Text formatting. The only place that includes fmt; the rest of the code writes tandem::format("…", …).
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace tandem {
using fmt::format;
using fmt::join;  // format("{}", join(list, ", "))
}  // namespace tandem
