// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/toml.h"

#include <gtest/gtest.h>

#include "tests/base/error_of.h"

namespace tandem {
namespace {

TEST(Toml, BecomesTheJsonThatItStandsFor) {
  const Json json = parse_toml("a = 1\nb.c = \"x\"\n[[d]]\ne = [1.5, -2.25]\n[[d]]\nf = true\n", "file");
  EXPECT_EQ(json.dump(), R"({"a":1,"b":{"c":"x"},"d":[{"e":[1.5,-2.25]},{"f":true}]})");
}

TEST(Toml, WhatIsWrongIsSaidWithItsLine) {
  const auto error = [](const std::string& text) { return error_of([&] { parse_toml(text, "file"); }).message(); };
  EXPECT_TRUE(error("a = 1\nb = \n").starts_with("file: line 2: ")) << error("a = 1\nb = \n");
  EXPECT_TRUE(error("a = 1\na = 2\n").starts_with("file: line 2: "));
  EXPECT_EQ(error("a = 1979-05-27"), "file: line 1: dates and times are not used here");
  EXPECT_EQ(error("a = 1\nb = [nan]"), "file: line 2: a number has to be finite");
  EXPECT_EQ(error("a = inf"), "file: line 1: a number has to be finite");
  EXPECT_EQ(error("[$a]"), "file: no valid TOML");
  EXPECT_TRUE(error("\xff = 1").starts_with("file: line 1: "));
  EXPECT_TRUE(error("a = \"\xff\"").starts_with("file: line 1: "));
}

TEST(Toml, SizeAndDepthHaveLimits) {
  const auto error = [](const std::string& text) { return error_of([&] { parse_toml(text, "file"); }).message(); };
  EXPECT_EQ(error(std::string((1 << 20) + 1, ' ')), "file: 1048577 bytes of TOML, limit is 1048576");
  EXPECT_EQ(error("x = 1\n[a.b.c.d.e.f.g.h.i]"), "file: line 2: a key of more than 8 parts");
  EXPECT_EQ(error("\"a.b\".c.d.e.f.g.h.i.j = 1"), "file: line 1: a key of more than 8 parts");
  std::string deep = "a = ";
  for (int i = 0; i < 20; ++i) deep += "{a.b.c.d.e.f = ";
  deep += "1" + std::string(20, '}');
  EXPECT_EQ(error(deep), "file: line 1: deeper than 64 tables");
  EXPECT_TRUE(error("a = " + std::string(100000, '[')).starts_with("file: line 1: "));
}

TEST(Toml, DotsThatAreNoKeysDoNotCount) {
  const Json json = parse_toml(
      "# a.b.c.d.e.f.g.h.i.j.k\na = \"1.2.3.4.5.6.7.8.9.\\\".1.2\"\nb = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]\n"
      "c = '''\n1.2.3.4.5.6.7.8.9'''\n",
      "file");
  EXPECT_EQ(json["b"].size(), 9u);
}

TEST(Toml, CharactersBeyondAsciiAreInQuotesAndComments) {
  EXPECT_EQ(parse_toml("a = \"é\" # é\n\"é\" = 1\nb = \"\"\"\n\"é\" \\\"\"\"\"\"\nc = '''é''''\n", "file").dump(),
            R"({"a":"é","b":"\"é\" \"\"","c":"é'","é":1})");
  const auto error = [](const std::string& text) { return error_of([&] { parse_toml(text, "file"); }).message(); };
  EXPECT_EQ(error("a = 1\né = 1"), "file: line 2: characters beyond ASCII belong into quotes and comments");
  EXPECT_EQ(error("a = '''b'c'''\n\nb = 1ï»¼"),
            "file: line 3: characters beyond ASCII belong into quotes and comments");
}

// toml++ 3.3.0 takes U+00A1 to U+0499 for unreachable where it looks for white space: after a line's end that is
// escaped, and in what it reads of a value that is none.
TEST(Toml, CharactersBeyondAsciiAreNoWhiteSpaceAnywhere) {
  EXPECT_EQ(parse_toml("a = \"\"\"x\\\n  é\"\"\"", "file")["a"].get<std::string>(), "xé");
  const auto error = [](const std::string& text) { return error_of([&] { parse_toml(text, "file"); }).message(); };
  for (const std::string value : {"1'é'", "1.'é'", "+x'é", "1+x\"é", "[1.'é']", "x\"\"\"é"}) {
    const std::string said = error("\na = " + value);
    EXPECT_TRUE(said.starts_with("file: line 2: ")) << value << ": " << said;
  }
}

TEST(Toml, TextsKeepTheirCharacters) {
  const Json json = parse_toml(
      "a = 'é\\u00e9 \"\\'\n"
      "b = '''\né\\\n\"\"\"'\n'''\n"
      "c = \"é\\\"\\\\é\U0001F600\\u00e9\"\n"
      "d = \"\"\"\"é\"\"\"\"\"\n"
      "e = ''\n"
      "'ö'.'\"'.f = 1 # 'ö\n",
      "file");
  const auto text = [&json](const char* key) { return json[key].get<std::string>(); };
  EXPECT_EQ(text("a"), "é\\u00e9 \"\\");
  EXPECT_EQ(text("b"), "é\\\n\"\"\"'\n");
  EXPECT_EQ(text("c"), "é\"\\é\U0001F600é");
  EXPECT_EQ(text("d"), "\"é\"\"");
  EXPECT_EQ(text("e"), "");
  EXPECT_EQ(json["ö"]["\""]["f"].get<int>(), 1);
}

TEST(Toml, BytesThatAreNoUtf8AreRefused) {
  const auto error = [](const std::string& text) { return error_of([&] { parse_toml(text, "file"); }).message(); };
  for (const std::string bytes :
       {"\xff", "\xc3", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80"})
    for (const std::string before : {"#", "a = '", "a = \"", "a = \"\"\""})
      EXPECT_EQ(error("\n" + before + bytes), "file: line 2: bytes that are no UTF-8") << before;
  const std::string last = "\xf4\x8f\xbf\xbf\xee\x80\x80";
  EXPECT_EQ(parse_toml("a = '" + last + "'", "file")["a"].get<std::string>(), last);
  EXPECT_EQ(error("a = \"\\é\""), "file: line 1: a backslash before a character that needs none");
}

TEST(Toml, TextsWithoutEndAreRefused) {
  const auto error = [](const std::string& text) { return error_of([&] { parse_toml(text, "file"); }).message(); };
  for (const std::string text :
       {"'é", "\"é", "\"é\\", "'''é''", "\"\"\"é\"\"", "'é\nb = 1", "\"é\nb = '1'", "\"\\\né"}) {
    const std::string said = error("a = " + text);
    EXPECT_TRUE(said.starts_with("file: line ")) << text << ": " << said;
  }
}

TEST(Toml, QuotedTextComesBack) {
  const std::string text = "a \"b\" \\c\n\t\x01 é";
  EXPECT_EQ(parse_toml("a = " + toml_quoted(text), "file")["a"].get<std::string>(), text);
}

}  // namespace
}  // namespace tandem
