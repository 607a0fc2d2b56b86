// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/pattern.h"

#include <algorithm>

namespace tandem {

namespace {

bool is_tool_name_byte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
}

bool is_parameter_name_byte(char c) {
  return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f && c != '"' && c != '<' && c != '>';
}

// Bytes at the beginning of text of a kind, one more than allowed at most.
template <class Kind>
std::size_t run_of(std::string_view text, std::size_t allowed, Kind kind) {
  std::size_t count = 0;
  while (count < text.size() && count <= allowed && kind(text[count])) ++count;
  return count;
}

}  // namespace

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

bool is_tool_name(std::string_view name) {
  return !name.empty() && name.size() <= kNameBytesMax && std::ranges::all_of(name, is_tool_name_byte);
}

PatternMatch match_pattern(std::string_view pattern, std::string_view text) {
  using Kind = PatternMatch::Kind;
  PatternMatch match;
  std::size_t at = 0;
  for (const char element : pattern) {
    const std::string_view rest = text.substr(at);
    if (element == '~') {
      const std::size_t run = run_of(rest, kSpaceBytesMax, is_space);
      if (run > kSpaceBytesMax) return {};
      at += run;
    } else if (element == '@' || element == '$') {
      const std::size_t run = run_of(rest, kNameBytesMax, element == '@' ? is_tool_name_byte : is_parameter_name_byte);
      if (run > kNameBytesMax) return {};
      if (run == rest.size()) return {.kind = Kind::kMore};
      if (run == 0) return {};
      match.name = rest.substr(0, run);
      at += run;
    } else {
      if (rest.empty()) return {.kind = Kind::kMore};
      if (rest.front() != (element == '^' ? '{' : element)) return {};
      if (element != '^') ++at;
    }
  }
  match.kind = Kind::kYes;
  match.end = at;
  return match;
}

PatternMatch match_mark(std::string_view mark, std::string_view text) {
  using Kind = PatternMatch::Kind;
  const std::size_t space = run_of(text, kSpaceBytesMax, is_space);
  if (space > kSpaceBytesMax) return {};
  const std::string_view rest = text.substr(space);
  if (rest.starts_with(mark)) return {.kind = Kind::kYes, .end = space + mark.size()};
  return {.kind = mark.starts_with(rest) ? Kind::kMore : Kind::kNo};
}

std::size_t trailing_space(std::string_view text) {
  std::size_t count = 0;
  while (count < text.size() && count < kSpaceBytesMax && is_space(text[text.size() - 1 - count])) ++count;
  return count;
}

std::size_t bytes_to_hold(std::string_view text, std::string_view marker) {
  std::size_t held = std::min(text.size(), marker.size() - 1);
  while (held > 0 && !marker.starts_with(text.substr(text.size() - held))) --held;
  return held + trailing_space(text.substr(0, text.size() - held));
}

}  // namespace tandem
