// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/json.h"

#include <gmock/gmock.h>

#include "tests/base/error_of.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

TEST(Json, reads_what_is_valid) {
  const Json value = parse_json(R"({"a": [1, 2.5, "x"], "b": null})", "test");
  EXPECT_EQ(value["a"][2], "x");
  EXPECT_TRUE(value["b"].is_null());
}

TEST(Json, names_the_source_of_a_mistake) {
  for (const char* text : {"", "{", "[1,]", "nul", "{\"a\":1} x", "\"\xff\"", "{\"a\" 1}", "]["}) {
    const Error error = error_of([&] { parse_json(text, "config.json"); });
    EXPECT_EQ(error.code(), ErrorCode::kInvalidData) << text;
    EXPECT_THAT(error.message(), HasSubstr("config.json")) << text;
  }
}

TEST(Json, bounds_size_and_depth) {
  EXPECT_THAT(error_of([] { parse_json("[1, 2, 3]", "x", {.bytes_max = 8}); }).message(), HasSubstr("limit is 8"));
  EXPECT_NO_THROW(parse_json("[[1]]", "x", {.depth_max = 2}));
  EXPECT_THAT(error_of([] { parse_json("[[[1]]]", "x", {.depth_max = 2}); }).message(), HasSubstr("nested 3 deep"));
  EXPECT_NO_THROW(parse_json(R"(["[[[[", "\"[[["])", "x", {.depth_max = 1})) << "brackets in strings do not nest";
  const std::string deep(100000, '[');
  EXPECT_THAT(error_of([&] { parse_json(deep, "x"); }).message(), HasSubstr("nested 100000 deep"));
}

TEST(Json, may_refuse_repeated_keys) {
  const char* repeated = R"({"a": 1, "b": {"c": 1, "c": 2}})";
  EXPECT_EQ(parse_json(repeated, "x")["b"]["c"], 2) << "the last one counts where repetition is allowed";
  EXPECT_THAT(error_of([&] { parse_json(repeated, "x", {.unique_keys = true}); }).message(),
              HasSubstr("\"c\" appears twice"));
  EXPECT_NO_THROW(parse_json(R"([{"a": {"a": 1}}, {"a": 2}])", "x", {.unique_keys = true}));
  EXPECT_THROW(parse_json("{\"a\": 1", "x", {.unique_keys = true}), Error);
}

TEST(Json, keeps_the_order_of_keys_within_sizes) {
  EXPECT_EQ(parse_ordered_json(R"({"b": 1, "a": [2, {"d": 3, "c": 4}]})", "x").dump(),
            R"({"b":1,"a":[2,{"d":3,"c":4}]})");
  EXPECT_THAT(error_of([] { parse_ordered_json(R"({"a": 1, "b": 2})", "x", {.keys_max = 1}); }).message(),
              HasSubstr("more than 1 keys"));
  EXPECT_NO_THROW(parse_ordered_json(R"([{"a": 1}, {"b": 2}])", "x", {.keys_max = 1}));
  EXPECT_THAT(error_of([] { parse_ordered_json("[[], 1, {}]", "x", {.values_max = 3}); }).message(),
              HasSubstr("more than 3 values"));
  EXPECT_NO_THROW(parse_ordered_json("[[], 1, {}]", "x", {.values_max = 4}));
  EXPECT_THAT(error_of([] { parse_ordered_json(R"({"a": 1, "a": 2})", "x", {.unique_keys = true}); }).message(),
              HasSubstr("appears twice"));
  for (const char* text : {"", "{", "\"\xff\"", R"("\ud800")", "NaN", "1e999"})
    EXPECT_THROW(parse_ordered_json(text, "x"), Error) << text;
}

TEST(Json, writes_one_line_even_of_bad_utf8) {
  EXPECT_EQ(to_line(Json{{"a", "b\nc"}}), R"({"a":"b\nc"})");
  EXPECT_EQ(to_line(Json("x\xff")), "\"x\xEF\xBF\xBD\"");
}

}  // namespace
}  // namespace tandem
