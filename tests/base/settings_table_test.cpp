// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/settings_table.h"

#include <gtest/gtest.h>

#include "tests/base/error_of.h"

namespace tandem {
namespace {

TEST(SettingsTable, ReadsWhatIsThereAndFillsInTheRest) {
  const Json json = parse_json(
      R"({"a": "x", "b": 3, "c": 0.5, "d": [1, 2], "e": {"f": true}, "g": [{"h": 1}], "i": ["p", "q"]})", "json");
  SettingsTable table(json, "file");
  EXPECT_EQ(table.text("a"), "x");
  EXPECT_EQ(table.integer("b", 1, 3), 3);
  EXPECT_EQ(table.number("b", 1, 3), 3.0);
  EXPECT_EQ(table.number("c", 0, 1), 0.5);
  EXPECT_EQ(table.integers("d", 1, 2), (std::vector<std::int64_t>{1, 2}));
  SettingsTable e = table.table("e");
  EXPECT_TRUE(e.boolean_or("f", false));
  EXPECT_FALSE(e.boolean_or("z", false));
  e.finish();
  std::vector<SettingsTable> g = table.tables("g");
  ASSERT_EQ(g.size(), 1u);
  EXPECT_EQ(g[0].path("h"), "file: g[0].h");
  EXPECT_TRUE(table.tables("missing").empty());
  EXPECT_EQ(table.texts("i"), (std::vector<std::string>{"p", "q"}));
  SettingsTable other = table.table_or("missing", json);
  EXPECT_EQ(other.path("a"), "file: missing.a");
  EXPECT_TRUE(table.table_or("e", json).boolean_or("f", false));
  EXPECT_EQ(table.text_or("missing", "y"), "y");
  EXPECT_EQ(table.word_or("a", "y", {"x", "y"}), "x");
  table.finish();
  EXPECT_EQ(error_of([&] { g[0].finish(); }).message(), "file: g[0].h is not a known key");
}

TEST(SettingsTable, SaysWhatIsWrong) {
  const Json json = parse_json(R"({"port": 70000, "name": "", "list": [1, 0], "kind": "atention", "flag": 1, "huge":
    18446744073709551615, "prot": 1})",
                               "json");
  SettingsTable table(json, "file");
  EXPECT_EQ(error_of([&] { table.integer("port", 1, 65535); }).message(),
            "file: port is 70000, has to be a whole number between 1 and 65535");
  EXPECT_EQ(error_of([&] { table.integer("huge", 0, INT64_MAX); }).message(),
            "file: huge is 18446744073709551615, has to be a whole number between 0 and 9223372036854775807");
  EXPECT_EQ(error_of([&] { table.number("port", 0, 1); }).message(),
            "file: port is 70000, has to be a number between 0 and 1");
  EXPECT_EQ(error_of([&] { table.number("kind", 0, 1); }).message(),
            "file: kind is \"atention\", has to be a number between 0 and 1");
  EXPECT_EQ(error_of([&] { table.text("name"); }).message(), "file: name is \"\", has to be a text");
  EXPECT_EQ(error_of([&] { table.text("nobody"); }).message(), "file: nobody is missing");
  EXPECT_EQ(error_of([&] { table.integers("list", 1, 2); }).message(),
            "file: list[1] is 0, has to be a whole number between 1 and 2");
  EXPECT_EQ(error_of([&] { table.word("kind", {"attention", "ffn"}); }).message(),
            "file: kind is \"atention\", has to be one of attention, ffn; did you mean attention?");
  EXPECT_EQ(error_of([&] { table.boolean_or("flag", true); }).message(), "file: flag is 1, has to be true or false");
  EXPECT_EQ(error_of([&] { table.tables("kind"); }).message(),
            "file: kind is \"atention\", has to be a list of tables ([[kind]])");
  EXPECT_EQ(error_of([&] { table.table("list"); }).message(), "file: list is no table");
  EXPECT_EQ(error_of([&] { table.texts("list"); }).message(), "file: list[0] is 1, has to be a text");
  EXPECT_EQ(error_of([&] { table.finish(); }).message(), "file: prot is not a known key; did you mean port?");
  EXPECT_EQ(error_of([&] { SettingsTable(json["port"], "file"); }).message(), "file is no table");
}

TEST(NearestWord, IsNearOrNone) {
  EXPECT_EQ(nearest_word("hots", {"port", "host"}), "host");
  EXPECT_EQ(nearest_word("usd_per_hours", {"usd_per_hour", "memory_bytes"}), "usd_per_hour");
  EXPECT_EQ(nearest_word("xyzzy", {"port", "host"}), "");
  EXPECT_EQ(nearest_word(std::string(10000, 'x'), {"x"}), "");
}

}  // namespace
}  // namespace tandem
