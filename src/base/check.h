// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// TANDEM_CHECK: assertions that stay on in every build. A failed check is a bug of ours: it prints the place, the
// condition and the message, and aborts. It must not be reachable from user input (error.h is for that).
#pragma once

#include <string_view>

namespace tandem {
[[noreturn]] void check_failed(const char* file, int line, const char* condition, std::string_view message);
}

#define TANDEM_CHECK(condition, message)                                 \
  do {                                                                   \
    if (!(condition)) [[unlikely]]                                       \
      ::tandem::check_failed(__FILE__, __LINE__, #condition, (message)); \
  } while (false)
