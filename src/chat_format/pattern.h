// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Small patterns against a text that is still coming: does it match, can it not match any more, or is more text needed?
// Any beginning of a text gets the answer that the whole text would give, or kMore.
//
//   ~  whitespace, also none, at most kSpaceBytesMax
//   @  the name of a tool: letters, digits, _ - . (1 to kNameBytesMax bytes)
//   $  the name of a parameter: anything but quotes, angle brackets and control characters, as long
//   ^  the next byte is {, which is left where it is
//   any other byte: itself
#pragma once

#include <cstddef>
#include <string_view>

namespace tandem {

inline constexpr std::size_t kSpaceBytesMax = 64;
inline constexpr std::size_t kNameBytesMax = 128;

struct PatternMatch {
  enum class Kind { kNo, kMore, kYes };
  Kind kind = Kind::kNo;
  std::size_t end = 0;         // of a match: the bytes that it took
  std::string_view name = {};  // what the last @ or $ took; a view into the text
};
PatternMatch match_pattern(std::string_view pattern, std::string_view text);
// The pattern of whitespace and then mark, whose bytes mean themselves.
PatternMatch match_mark(std::string_view mark, std::string_view text);

bool is_space(char c);
bool is_tool_name(std::string_view name);

// For a text that does not contain marker: so many of its last bytes may be the beginning of one, or the whitespace
// before one, and have to wait for more.
std::size_t bytes_to_hold(std::string_view text, std::string_view marker);
// Whitespace at the end of text, at most kSpaceBytesMax.
std::size_t trailing_space(std::string_view text);

}  // namespace tandem
