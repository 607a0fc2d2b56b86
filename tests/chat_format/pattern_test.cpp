// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/pattern.h"

#include <gtest/gtest.h>

#include <string>

namespace tandem {
namespace {

using Kind = PatternMatch::Kind;

TEST(Pattern, matches_needs_more_or_cannot) {
  const std::string_view pattern = "~f(@)~^";
  EXPECT_EQ(match_pattern(pattern, " f(a-b) {x").kind, Kind::kYes);
  EXPECT_EQ(match_pattern(pattern, " f(a-b) {x").end, 8);
  EXPECT_EQ(match_pattern(pattern, "f(a-b) {x").name, "a-b");
  for (const char* more : {"", "  ", " f(", "f(ab", "f(ab)", "f(ab) "})
    EXPECT_EQ(match_pattern(pattern, more).kind, Kind::kMore) << more;
  for (const char* no : {"x", "f()", "f(a b)", "f(ab)x"}) EXPECT_EQ(match_pattern(pattern, no).kind, Kind::kNo) << no;
}

TEST(Pattern, marks_mean_themselves) {
  EXPECT_EQ(match_mark("<~>", " \n<~>x").kind, Kind::kYes);
  EXPECT_EQ(match_mark("<~>", " \n<~>x").end, 5);
  for (const char* more : {"", " ", " <", "<~"}) EXPECT_EQ(match_mark("<~>", more).kind, Kind::kMore) << more;
  for (const char* no : {"x", "< ~>", "<>"}) EXPECT_EQ(match_mark("<~>", no).kind, Kind::kNo) << no;
  EXPECT_EQ(match_mark("x", std::string(kSpaceBytesMax + 1, ' ')).kind, Kind::kNo);
}

TEST(Pattern, runs_are_bounded) {
  EXPECT_EQ(match_pattern("~x", std::string(kSpaceBytesMax, ' ') + "x").kind, Kind::kYes);
  EXPECT_EQ(match_pattern("~x", std::string(kSpaceBytesMax, ' ')).kind, Kind::kMore);
  EXPECT_EQ(match_pattern("~x", std::string(kSpaceBytesMax + 1, ' ')).kind, Kind::kNo);
  EXPECT_EQ(match_pattern("@x", std::string(kNameBytesMax, 'a')).kind, Kind::kMore);
  EXPECT_EQ(match_pattern("@x", std::string(kNameBytesMax + 1, 'a')).kind, Kind::kNo);
}

TEST(Pattern, parameter_names_are_wider_than_names_of_tools) {
  EXPECT_EQ(match_pattern("$\"", "größe in m\"").name, "größe in m");
  EXPECT_EQ(match_pattern("@\"", "größe\"").kind, Kind::kNo);
  EXPECT_EQ(match_pattern("$\"", "a<b\"").kind, Kind::kNo);
  EXPECT_TRUE(is_tool_name("get_weather-2.x"));
  EXPECT_FALSE(is_tool_name(""));
  EXPECT_FALSE(is_tool_name("a b"));
  EXPECT_FALSE(is_tool_name(std::string(kNameBytesMax + 1, 'a')));
}

TEST(Pattern, holds_what_may_become_a_mark) {
  EXPECT_EQ(bytes_to_hold("abc", "<x>"), 0);
  EXPECT_EQ(bytes_to_hold("abc<", "<x>"), 1);
  EXPECT_EQ(bytes_to_hold("abc \n<x", "<x>"), 4);
  EXPECT_EQ(bytes_to_hold("abc<x \n", "<x>"), 2);
  EXPECT_EQ(bytes_to_hold(std::string(100, ' '), "<x>"), kSpaceBytesMax);
}

}  // namespace
}  // namespace tandem
