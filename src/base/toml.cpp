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

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

struct BrokenAssertion {};

[[noreturn]] void refuse(const std::string& what, std::size_t line, const std::string& why) {
  throw Error(ErrorCode::kInvalidData,
              line > 0 ? format("{}: line {}: {}", what, line, why) : format("{}: {}", what, why));
}

// The character at the front of a text that begins beyond ASCII: its value and how many bytes it takes, which is none
// for bytes that are no UTF-8 (RFC 3629, section 4).
struct Character {
  std::uint32_t value = 0;
  std::size_t bytes = 0;
};

Character character_of(std::string_view text) {
  const auto byte = [text](std::size_t i) { return std::uint32_t{static_cast<unsigned char>(text[i])}; };
  const std::size_t bytes = byte(0) >= 0xf0 ? 4 : byte(0) >= 0xe0 ? 3 : 2;
  if (byte(0) < 0xc2 || byte(0) > 0xf4 || text.size() < bytes) return {};
  std::uint32_t value = byte(0) & (0x7fu >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    value = value << 6 | (byte(i) & 0x3f);
  }
  constexpr std::array<std::uint32_t, 5> kLeast = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = value >= 0xd800 && value <= 0xdfff;
  if (value < kLeast[bytes] || value > 0x10ffff || surrogate) return {};
  return {value, bytes};
}

bool is_ascii(char c) {
  return static_cast<unsigned char>(c) < 0x80;
}

// What the parser gets to see: the same document, line for line, in ASCII. It asks of characters beyond ASCII in many
// places whether they are white space, and what it does with some (U+00A1 to U+0499) is undefined there, in valid
// documents too. Texts escape them here (one in single quotes changes to double ones for it), comments lose them, and
// elsewhere TOML has none. It also bounds values inside values, but not the parts of a key, each of which is a table
// inside a table; so that is checked here.
class AsciiCopy {
 public:
  AsciiCopy(std::string_view text, const std::string& what, int parts_max)
      : text_(text), what_(what), parts_max_(parts_max) {}

  std::string make() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#')
        take_comment();
      else if (c == '"' || c == '\'')
        take_text(c);
      else
        take_plain(c);
    }
    return std::move(out_);
  }

 private:
  bool is_at(std::size_t at, std::string_view part) const { return text_.substr(at, part.size()) == part; }

  void take() {
    if (text_[at_] == '\n') ++line_;
    out_ += text_[at_++];
  }

  std::uint32_t take_character() {
    const Character character = character_of(text_.substr(at_));
    if (character.bytes == 0) refuse(what_, line_, "bytes that are no UTF-8");
    at_ += character.bytes;
    return character.value;
  }

  // Dots of numbers count too, so a run ends wherever a value may end.
  void take_plain(char c) {
    if (!is_ascii(c)) refuse(what_, line_, "characters beyond ASCII belong into quotes and comments");
    if (c == '.' && ++dots_ >= parts_max_) refuse(what_, line_, format("a key of more than {} parts", parts_max_));
    if (c == '=' || c == ',' || c == '[' || c == '{' || c == '\n') dots_ = 0;
    take();
  }

  // Leaves the line's end.
  void take_comment() {
    while (at_ < text_.size() && text_[at_] != '\n') {
      if (is_ascii(text_[at_])) {
        take();
      } else {
        take_character();
        out_ += '?';
      }
    }
  }

  void take_text(char quote) {
    const bool is_long = is_at(at_, std::string(3, quote));
    const std::string quotes(is_long ? 3 : 1, quote);
    const std::size_t inside = at_ + quotes.size(), close = end_of_text(inside, quotes);
    const bool closed = is_at(close, quotes);
    const bool keeps = std::ranges::all_of(text_.substr(at_, close - at_), is_ascii);
    const std::string written = keeps ? quotes : std::string(quotes.size(), '"');
    out_ += written;
    for (at_ = inside; at_ < close;) take_inside(quote, keeps);
    if (!closed) return;  // which the parser refuses
    out_ += written;
    at_ = close + quotes.size();
  }

  // Where the closing quotes are; of a text without them the end of its line, or of the document.
  std::size_t end_of_text(std::size_t at, const std::string& quotes) const {
    const bool is_long = quotes.size() > 1;
    for (; at < text_.size() && (is_long || text_[at] != '\n'); ++at) {
      if (text_[at] == '\\' && quotes[0] == '"') {
        ++at;
      } else if (is_at(at, quotes)) {
        // The last three of up to five quotes end a long text.
        for (int more = 0; is_long && more < 2 && is_at(at + 1, quotes); ++more) ++at;
        return at;
      }
    }
    return std::min(at, text_.size());
  }

  // One character of a text, with what a backslash escapes; in single quotes that is itself, and stays it.
  void take_inside(char quote, bool keeps) {
    const char c = text_[at_];
    if (!is_ascii(c)) {
      out_ += format("\\U{:08X}", take_character());
    } else if (c == '\\' && quote == '"') {
      take();
      if (at_ == text_.size()) return;
      if (!is_ascii(text_[at_])) refuse(what_, line_, "a backslash before a character that needs none");
      take();
    } else {
      if (quote == '\'' && !keeps && (c == '\\' || c == '"')) out_ += '\\';
      take();
    }
  }

  std::string_view text_;
  const std::string& what_;
  int parts_max_;
  std::size_t at_ = 0, line_ = 1;
  int dots_ = 0;
  std::string out_;
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
  const std::string ascii = AsciiCopy(text, what, limits.path_parts_max).make();
  try {
    const toml::table table = toml::parse(std::string_view(ascii));
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
