// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#define TOML_MAX_NESTED_VALUES 32  // the parser recurses
#define TOML_ENABLE_FORMATTERS 0
#define TOML_ENABLE_UNRELEASED_FEATURES 0
#include "base/toml.h"

#include <toml++/toml.h>

#include <cmath>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

[[noreturn]] void refuse(const std::string& what, std::size_t line, const std::string& why) {
  throw Error(ErrorCode::kInvalidData,
              line > 0 ? format("{}: line {}: {}", what, line, why) : format("{}: {}", what, why));
}

// How many parts the longest dotted key has, and the line of the first that has more than parts_max. The parser bounds
// values inside values, but not the parts of a key, each of which is a table inside a table. Dots of texts and comments
// do not count; those of numbers do, so a run ends wherever a value does.
std::size_t line_of_long_key(std::string_view text, int parts_max) {
  std::size_t line = 1;
  int dots = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') ++line;
    if (c == '.') {
      if (++dots >= parts_max) return line;
    } else if (c == '#') {
      while (i + 1 < text.size() && text[i + 1] != '\n') ++i;
    } else if (c == '"' || c == '\'') {
      // A text in three quotes is an empty one, one with its middle, and an empty one: the same to us.
      while (i + 1 < text.size() && text[i + 1] != c) {
        if (text[++i] == '\n') ++line;
        if (text[i] == '\\' && c == '"') ++i;
      }
      ++i;
    } else if (c == '=' || c == ',' || c == '[' || c == '{' || c == '\n') {
      dots = 0;
    }
  }
  return 0;
}

// The walk of one document, which knows how deep it is.
class Converter {
 public:
  Converter(const std::string& what, int depth_max) : what_(what), depth_max_(depth_max) {}

  Json table(const toml::table& table, int depth) const {
    if (depth > depth_max_) refuse(what_, line_of(table), format("deeper than {} tables", depth_max_));
    Json object = Json::object();
    for (const auto& [key, node] : table) object[std::string(key.str())] = value(node, depth + 1);
    return object;
  }

 private:
  static std::size_t line_of(const toml::node& node) { return node.source().begin.line; }

  Json value(const toml::node& node, int depth) const {
    if (const auto* inner = node.as_table()) return table(*inner, depth);
    if (const auto* list = node.as_array()) {
      if (depth > depth_max_) refuse(what_, line_of(node), format("deeper than {} tables", depth_max_));
      Json array = Json::array();
      for (const auto& item : *list) array.push_back(value(item, depth + 1));
      return array;
    }
    if (const auto* text = node.as_string()) return text->get();
    if (const auto* integer = node.as_integer()) return integer->get();
    if (const auto* boolean = node.as_boolean()) return boolean->get();
    if (const auto* number = node.as_floating_point()) {
      if (!std::isfinite(number->get())) refuse(what_, line_of(node), "a number has to be finite");
      return number->get();
    }
    refuse(what_, line_of(node), "dates and times are not used here");
  }

  const std::string& what_;
  int depth_max_;
};

}  // namespace

Json parse_toml(std::string_view text, const std::string& what, const TomlLimits& limits) {
  if (text.size() > limits.bytes_max)
    refuse(what, 0, format("{} bytes of TOML, limit is {}", text.size(), limits.bytes_max));
  if (const std::size_t line = line_of_long_key(text, limits.path_parts_max); line > 0)
    refuse(what, line, format("a key of more than {} parts", limits.path_parts_max));
  try {
    const toml::table table = toml::parse(text);
    return Converter(what, limits.depth_max).table(table, 0);
  } catch (const toml::parse_error& error) {
    refuse(what, error.source().begin.line, std::string(error.description()));
  }
}

std::string toml_quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      out += {'\\', c};
    else if (byte < 0x20 || byte == 0x7f)
      out += format("\\u{:04X}", byte);
    else
      out += c;
  }
  return out + "\"";
}

}  // namespace tandem
