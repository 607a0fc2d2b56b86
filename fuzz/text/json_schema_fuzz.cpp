// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any JSON as a schema: an Error, or a schema in which nothing is left to be said in other words.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "text/json_schema.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const tandem::OrderedJson schema =
        tandem::enforceable_schema(tandem::parse_ordered_json(text, "schema", {.bytes_max = 1 << 16, .depth_max = 24}));
    TANDEM_CHECK(tandem::enforceable_schema(schema) == schema, "a second time changes more");
  } catch (const tandem::Error&) {
  }
  return 0;
}
