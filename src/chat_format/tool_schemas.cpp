// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/tool_schemas.h"

#include <algorithm>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

constexpr int kNestingMax = 16;
constexpr int kSchemasMax = 10'000;  // looked at for one request: references may multiply

unsigned type_of_name(const OrderedJson& name) {
  if (name == "string") return kTypeString;
  if (name == "number") return kTypeNumber | kTypeInteger;
  if (name == "integer") return kTypeInteger;
  if (name == "boolean") return kTypeBoolean;
  if (name == "null") return kTypeNull;
  if (name == "object") return kTypeObject;
  if (name == "array") return kTypeArray;
  return 0;
}

unsigned type_of_value(const OrderedJson& value) {
  if (value.is_string()) return kTypeString;
  if (value.is_number_integer()) return kTypeInteger;
  if (value.is_number()) return kTypeNumber;
  if (value.is_boolean()) return kTypeBoolean;
  if (value.is_null()) return kTypeNull;
  return value.is_object() ? kTypeObject : kTypeArray;
}

// "#/$defs/NAME" within root; null when there is none.
const OrderedJson* referenced(const OrderedJson& root, const OrderedJson& reference) {
  if (!reference.is_string() || !reference.get_ref<const std::string&>().starts_with("#/")) return nullptr;
  try {
    const OrderedJson::json_pointer pointer(reference.get_ref<const std::string&>().substr(1));
    return root.contains(pointer) ? &root.at(pointer) : nullptr;
  } catch (const OrderedJson::exception&) {
    return nullptr;
  }
}

unsigned types_of(const OrderedJson& root, const OrderedJson& schema, int nesting, int& schemas_left) {
  if (!schema.is_object() || nesting > kNestingMax || --schemas_left < 0) return 0;
  unsigned types = 0;
  for (const auto& [key, value] : schema.items()) {
    if (key == "type") {
      for (const OrderedJson& name : value.is_array() ? value : OrderedJson::array({value}))
        types |= type_of_name(name);
    } else if (key == "const") {
      types |= type_of_value(value);
    } else if (key == "enum" && value.is_array()) {
      for (const OrderedJson& item : value) types |= type_of_value(item);
    } else if ((key == "anyOf" || key == "oneOf" || key == "allOf") && value.is_array()) {
      for (const OrderedJson& item : value) types |= types_of(root, item, nesting + 1, schemas_left);
    } else if (key == "$ref") {
      if (const OrderedJson* target = referenced(root, value))
        types |= types_of(root, *target, nesting + 1, schemas_left);
    }
  }
  return types;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kSpace);
  return begin == std::string_view::npos ? "" : text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

bool equal_but_for_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) { return (x >= 'A' && x <= 'Z' ? x - 'A' + 'a' : x) == y; });
}

}  // namespace

ToolSchemas::ToolSchemas(const OrderedJson& tools) {
  if (!tools.is_array()) return;
  int schemas_left = kSchemasMax;
  for (const OrderedJson& tool : tools) {
    if (!tool.is_object() || !tool.contains("function") || !tool["function"].is_object()) continue;
    const OrderedJson& function = tool["function"];
    if (!function.contains("name") || !function["name"].is_string() || !function.contains("parameters")) continue;
    const OrderedJson& schema = function["parameters"];
    if (!schema.is_object() || !schema.contains("properties") || !schema["properties"].is_object()) continue;
    auto& parameters = tools_[function["name"].get<std::string>()];
    for (const auto& [name, parameter] : schema["properties"].items())
      parameters[name] = types_of(schema, parameter, 0, schemas_left);
  }
}

unsigned ToolSchemas::types(std::string_view tool, std::string_view parameter) const {
  const auto known = tools_.find(tool);
  if (known == tools_.end()) return kTypeString;
  const auto found = known->second.find(parameter);
  return found == known->second.end() || found->second == 0 ? static_cast<unsigned>(kTypeString) : found->second;
}

std::string json_escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20) {
      out += format("\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

std::string cast_value(std::string_view raw, unsigned types) {
  const std::string_view text = trimmed(raw);
  if ((types & kTypeBoolean) != 0)
    for (const char* word : {"true", "false"})
      if (equal_but_for_case(text, word)) return word;
  if ((types & kTypeNull) != 0 && (equal_but_for_case(text, "null") || text == "None")) return "null";
  if ((types & ~kTypeString) != 0) {
    try {
      if ((type_of_value(parse_ordered_json(text, "value")) & types) != 0) return std::string(text);
    } catch (const Error&) {  // no JSON: it stays text
    }
  }
  return '"' + json_escaped(text) + '"';
}

}  // namespace tandem
