// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the schemas of a request's tools say of each parameter's type, and how a value that a model wrote as plain text
// becomes JSON by it. Not a validator.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/json.h"

namespace tandem {

// The types that a value may have, or'ed. A parameter of which nothing is said is text.
enum ValueType : unsigned {
  kTypeString = 1,
  kTypeNumber = 2,
  kTypeInteger = 4,
  kTypeBoolean = 8,
  kTypeNull = 16,
  kTypeObject = 32,
  kTypeArray = 64,
};

class ToolSchemas {
 public:
  ToolSchemas() = default;
  // tools: OpenAI's array of {"type": "function", "function": {"name", "parameters"}}; entries of other form are passed
  // over.
  explicit ToolSchemas(const OrderedJson& tools);

  unsigned types(std::string_view tool, std::string_view parameter) const;

 private:
  std::map<std::string, std::map<std::string, unsigned, std::less<>>, std::less<>> tools_;
};

// raw, without the whitespace around it, as one JSON value of the types: as it is when it is one, text otherwise. True,
// FALSE and None are understood where true, false and null are.
std::string cast_value(std::string_view raw, unsigned types);
// text between the quotes of a JSON string.
std::string json_escaped(std::string_view text);

}  // namespace tandem
