// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/format.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {
namespace {

TEST(Format, numbers_strings_and_characters) {
  const std::string text = "text";
  EXPECT_EQ(format("{} {} {} {}", 3, text, std::string_view("view"), 'c'), "3 text view c");
  EXPECT_EQ(format("{:>6.2f}|{:<4}|{:04x}|{:.3}", 1.5, 7, 255, "abcdef"), "  1.50|7   |00ff|abc");
  EXPECT_EQ(format("{1} {0} {{}}", true, std::numeric_limits<std::uint64_t>::max()), "18446744073709551615 true {}");
  EXPECT_EQ(format("{}", 0.1), "0.1");
  EXPECT_EQ(format("{}", 0.1f), "0.1");
}

TEST(Format, width_may_be_an_argument) {
  EXPECT_EQ(format("{:>{}}|", "ab", 5), "   ab|");
}

TEST(Join, values_of_any_range) {
  EXPECT_EQ(join(std::vector<std::string>{"a", "b", "c"}, ", "), "a, b, c");
  EXPECT_EQ(join(std::set<std::string_view>{"b", "a"}, ""), "ab");
  EXPECT_EQ(join(std::array<std::int64_t, 3>{-1, 0, 7}, ","), "-1,0,7");
  EXPECT_EQ(join(std::vector<const char*>{"one"}, ", "), "one");
  EXPECT_EQ(join(std::vector<int>{}, ", "), "");
  const std::vector<int> some = {1, 2, 3};
  EXPECT_EQ(join(some.begin() + 1, some.end(), " "), "2 3");
}

}  // namespace
}  // namespace tandem
