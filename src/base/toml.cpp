// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#define TOML_MAX_NESTED_VALUES 32  // the parser recurses
#define TOML_ENABLE_FORMATTERS 0
#define TOML_ENABLE_UNRELEASED_FEATURES 0
#include "base/toml.h"

// Some inputs ("[$") break what the parser asserts of itself. With NDEBUG it would let the compiler assume it; here a
// broken assertion is a refusal like any other.
#undef NDEBUG
#define TOML_ASSERT(...) ((__VA_ARGS__) ? void() : tandem::refuse_assertion())
namespace tandem {
[[noreturn]] static void refuse_assertion();
}
#include <toml++/toml.h>

#include <cmath>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

struct BrokenAssertion {};

[[noreturn]] void refuse(const std::string& what, std::size_t line, const std::string& why) {
  throw Error(ErrorCode::kInvalidData,
              line > 0 ? format("{}: line {}: {}", what, line, why) : format("{}: {}", what, why));
}

// What is checked before the parser sees a text. It bounds values inside values, but not the parts of a key, each of
// which is a table inside a table; and it is not sure of itself with characters beyond ASCII outside of texts and
// comments, where TOML has none.
class Scanner {
 public:
  Scanner(std::string_view text, const std::string& what, int parts_max)
      : text_(text), what_(what), parts_max_(parts_max) {}

  void check() {
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '#')
        skip_comment();
      else if (c == '"' || c == '\'')
        skip_text(c);
      else
        check_plain(c);
    }
  }

 private:
  bool is_at(std::string_view part) const { return text_.substr(at_, part.size()) == part; }

  // Dots of numbers count too, so a run ends wherever a value may end.
  void check_plain(char c) {
    if (static_cast<unsigned char>(c) >= 0x80)
      refuse(what_, line_, "characters beyond ASCII belong into quotes and comments");
    if (c == '\n') ++line_;
    if (c == '.' && ++dots_ >= parts_max_) refuse(what_, line_, format("a key of more than {} parts", parts_max_));
    if (c == '=' || c == ',' || c == '[' || c == '{' || c == '\n') dots_ = 0;
  }

  // Leaves the line's end to be seen.
  void skip_comment() {
    while (at_ + 1 < text_.size() && text_[at_ + 1] != '\n') ++at_;
  }

  // To the last of its quotes; a text without end goes to the end.
  void skip_text(char quote) {
    const std::string three(3, quote);
    const bool long_text = is_at(three);
    const std::string_view end = long_text ? std::string_view(three) : std::string_view(three).substr(2);
    for (at_ += end.size(); at_ < text_.size(); ++at_) {
      if (text_[at_] == '\n') {
        ++line_;
        if (!long_text) return;  // which the parser refuses
      }
      if (text_[at_] == '\\' && quote == '"') {
        ++at_;
      } else if (is_at(end)) {
        at_ += end.size() - 1;
        // The last three of up to five quotes end a long text.
        for (int more = 0; long_text && more < 2 && at_ + 1 < text_.size() && text_[at_ + 1] == quote; ++more) ++at_;
        return;
      }
    }
  }

  std::string_view text_;
  const std::string& what_;
  int parts_max_;
  std::size_t at_ = 0, line_ = 1;
  int dots_ = 0;
};

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

[[noreturn]] static void refuse_assertion() {
  throw BrokenAssertion();
}

Json parse_toml(std::string_view text, const std::string& what, const TomlLimits& limits) {
  if (text.size() > limits.bytes_max)
    refuse(what, 0, format("{} bytes of TOML, limit is {}", text.size(), limits.bytes_max));
  Scanner(text, what, limits.path_parts_max).check();
  try {
    const toml::table table = toml::parse(text);
    return Converter(what, limits.depth_max).table(table, 0);
  } catch (const toml::parse_error& error) {
    refuse(what, error.source().begin.line, std::string(error.description()));
  } catch (const BrokenAssertion&) {
    refuse(what, 0, "no valid TOML");
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
