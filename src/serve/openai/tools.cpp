// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/openai/tools.h"

#include <set>

#include "base/format.h"
#include "chat_format/pattern.h"
#include "serve/openai/fields.h"

namespace tandem {

namespace {

constexpr std::size_t kToolNameBytesMax = 64;

const OrderedJson& member(const OrderedJson& object, const char* key, const std::string& field) {
  const auto found = object.find(key);
  if (found == object.end()) bad_field(format("{}.{}", field, key), "is missing");
  return *found;
}

// The function of a tool, a call or a choice: {"type": "function", "function": {"name": …}}.
const OrderedJson& function_of(const OrderedJson& object, const std::string& field) {
  if (!object.is_object()) bad_field(field, "must be an object");
  if (member(object, "type", field) != "function") bad_field(field + ".type", "must be function");
  const OrderedJson& function = member(object, "function", field);
  if (!function.is_object()) bad_field(field + ".function", "must be an object");
  const OrderedJson& name = member(function, "name", field + ".function");
  if (!name.is_string() || !is_tool_name(name.get_ref<const std::string&>()) ||
      name.get_ref<const std::string&>().size() > kToolNameBytesMax)
    bad_field(field + ".function.name", format("must have 1 to {} letters, digits, _, - or .", kToolNameBytesMax));
  return function;
}

OrderedJson read_tool(const OrderedJson& tool, const std::string& field, const RequestLimits& limits) {
  OrderedJson function = function_of(tool, field);
  if (function.contains("description") && !function["description"].is_null() && !function["description"].is_string())
    bad_field(field + ".function.description", "must be text");
  if (function.contains("parameters") && !function["parameters"].is_null() && !function["parameters"].is_object())
    bad_field(field + ".function.parameters", "must be a JSON schema, an object");
  if (function.contains("strict") && !function["strict"].is_null() && !function["strict"].is_boolean())
    bad_field(field + ".function.strict", "must be true or false");
  const auto bytes = static_cast<std::int64_t>(to_line(function).size());
  if (bytes > limits.tool_bytes_max)
    bad_field(field, format("has {} bytes, limit is {} (--tool-bytes-max)", bytes, limits.tool_bytes_max));
  return {{"type", "function"}, {"function", std::move(function)}};
}

// Whether the answer may call, and what of use it says. names: of the tools that there are.
bool read_choice(const OrderedJson* choice, const std::set<std::string>& names, ToolUse& use) {
  if (!choice) return !names.empty();
  if (*choice == "none") return false;
  if (*choice == "auto") return !names.empty();
  const bool named = choice->is_object();
  if (!named && *choice != "required")
    bad_field("tool_choice", R"(must be none, auto, required or {"type": "function", "function": {"name": …}})");
  if (names.empty()) bad_field("tool_choice", "wants tools to choose from");
  if (named) use.only = function_of(*choice, "tool_choice")["name"].get<std::string>();
  if (named && !names.contains(use.only))
    bad_field("tool_choice.function.name", "is the name of no tool of the request");
  use.must_call = true;
  return true;
}

}  // namespace

ToolUse read_tools(const RequestDraft& draft) {
  const RequestLimits& limits = draft.scope->limits;
  ToolUse use;
  std::set<std::string> names;
  OrderedJson tools = OrderedJson::array();
  if (draft.tools) {
    if (!draft.tools->is_array()) bad_field("tools", "must be an array");
    if (static_cast<std::int64_t>(draft.tools->size()) > limits.tools_max)
      bad_field("tools", format("has {} tools, limit is {} (--tools-max)", draft.tools->size(), limits.tools_max));
    for (std::size_t i = 0; i < draft.tools->size(); ++i) {
      const std::string field = format("tools[{}]", i);
      tools.push_back(read_tool((*draft.tools)[i], field, limits));
      if (!names.insert(tools.back()["function"]["name"].get<std::string>()).second)
        bad_field(field + ".function.name", "is the name of another tool, too");
    }
  }
  if (!read_choice(draft.tool_choice, names, use)) return use;
  if (!draft.scope->format.calls)
    throw ApiError(400, "how this model calls tools is not known: the server needs a --tool-call-parser", "tools",
                   "unsupported_parameter");
  use.tools = std::move(tools);
  return use;
}

OrderedJson ToolUse::for_template() const {
  OrderedJson shown = tools;
  for (OrderedJson& tool : shown) tool["function"].erase("strict");
  return shown;
}

OrderedJson read_tool_calls(const OrderedJson& calls, const std::string& field, const RequestLimits& limits) {
  if (!calls.is_array()) bad_field(field, "must be an array");
  if (static_cast<std::int64_t>(calls.size()) > limits.tools_max)
    bad_field(field, format("has {} calls, limit is {} (--tools-max)", calls.size(), limits.tools_max));
  OrderedJson read = OrderedJson::array();
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const std::string place = format("{}[{}]", field, i), arguments_field = place + ".function.arguments";
    const OrderedJson& function = function_of(calls[i], place);
    const OrderedJson& arguments = member(function, "arguments", place + ".function");
    if (!arguments.is_string()) bad_field(arguments_field, "must be text that is a JSON object");
    const auto& text = arguments.get_ref<const std::string&>();
    if (static_cast<std::int64_t>(text.size()) > limits.tool_bytes_max)
      bad_field(arguments_field,
                format("has {} bytes, limit is {} (--tool-bytes-max)", text.size(), limits.tool_bytes_max));
    OrderedJson object = OrderedJson::object();
    try {
      if (text.find_first_not_of(" \t\r\n") != std::string::npos)
        object = parse_ordered_json(text, arguments_field,
                                    {.depth_max = static_cast<int>(limits.json_depth_max),
                                     .keys_max = static_cast<std::size_t>(limits.json_keys_max),
                                     .values_max = static_cast<std::size_t>(limits.json_values_max)});
    } catch (const Error& error) {
      throw ApiError(400, error.message(), arguments_field, "invalid_value");
    }
    if (!object.is_object()) bad_field(arguments_field, "must be text that is a JSON object");
    OrderedJson call{{"type", "function"},
                     {"function", {{"name", function["name"]}, {"arguments", std::move(object)}}}};
    if (const auto id = calls[i].find("id"); id != calls[i].end() && !id->is_null()) {
      if (!id->is_string()) bad_field(place + ".id", "must be text");
      call["id"] = *id;
    }
    read.push_back(std::move(call));
  }
  return read;
}

}  // namespace tandem
