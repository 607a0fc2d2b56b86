// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// fmt is compiled into this file (CMakeLists.txt: FMT_HEADER_ONLY), so that the program needs no library of its at run
// time.
#include "base/format.h"

#include <fmt/format.h>

namespace tandem {

std::string format_arguments(fmt::string_view text, fmt::format_args arguments) {
  return fmt::vformat(text, arguments);
}

}  // namespace tandem
