// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any text as a data URL: an Error, or no more bytes than the limit allows.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "session/data_url.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kLimit = 1000;
  try {
    const std::string bytes = tandem::read_data_url({reinterpret_cast<const char*>(data), size}, kLimit);
    TANDEM_CHECK(bytes.size() <= kLimit, "more bytes than the limit");
  } catch (const tandem::Error&) {
  }
  return 0;
}
