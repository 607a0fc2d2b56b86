// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// JSON. The only place that includes nlohmann-json; outside bytes go through parse_json, which bounds size and depth
// and throws our Error with the name of the source.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace tandem {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

struct JsonLimits {
  std::size_t bytes_max = 64 << 20;
  int depth_max = 64;
  bool unique_keys = false;  // an object that names a key twice is an error; otherwise the last one counts
  // With parse_ordered_json only, whose objects take time in the square of their size.
  std::size_t keys_max = 4096;         // of one object
  std::size_t values_max = 1'000'000;  // of all
};

// Parses text; what names the source in messages. Throws Error{kInvalidData}.
Json parse_json(std::string_view text, const std::string& what, const JsonLimits& limits = {});
// The same with keys in the order of the text, for what a template writes out again.
OrderedJson parse_ordered_json(std::string_view text, const std::string& what, const JsonLimits& limits = {});

// One line of JSON. Invalid UTF-8 is replaced, never thrown at the caller.
std::string to_line(const Json& value);
std::string to_line(const OrderedJson& value);

}  // namespace tandem
