// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/tool_schemas.h"

#include <gtest/gtest.h>

#include "tests/chat_format/answers.h"

namespace tandem {
namespace {

TEST(ToolSchemas, types_are_found_wherever_a_schema_says_them) {
  const ToolSchemas schemas(weather_tools());
  EXPECT_EQ(schemas.types("weather", "city"), kTypeString);
  EXPECT_EQ(schemas.types("weather", "days"), kTypeInteger) << "by reference";
  EXPECT_EQ(schemas.types("weather", "unit"), kTypeString) << "by its values";
  EXPECT_EQ(schemas.types("weather", "note"), kTypeString | kTypeNull);
  EXPECT_EQ(schemas.types("weather", "unheard"), kTypeString);
  EXPECT_EQ(schemas.types("other", "city"), kTypeString);
}

TEST(ToolSchemas, tools_of_another_form_say_nothing) {
  for (const char* tools : {"null", "[1]", R"([{"function": 3}])", R"([{"function": {"name": "f"}}])",
                            R"([{"function": {"name": "f", "parameters": {"properties": [1]}}}])"})
    EXPECT_EQ(ToolSchemas(OrderedJson::parse(tools)).types("f", "a"), kTypeString) << tools;
}

TEST(ToolSchemas, references_that_multiply_end) {
  const OrderedJson tools = OrderedJson::parse(R"([{"function": {"name": "f", "parameters": {
    "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}, {"type": "null"}]}},
    "properties": {"x": {"$ref": "#/$defs/a"}, "y": {"$ref": "#nowhere"}, "z": {"$ref": "#/~9"}}}}}])");
  EXPECT_EQ(ToolSchemas(tools).types("f", "x"), kTypeNull);
  EXPECT_EQ(ToolSchemas(tools).types("f", "y"), kTypeString);
}

TEST(ToolSchemas, values_are_what_their_type_says_or_text) {
  EXPECT_EQ(cast_value(" 3 ", kTypeInteger), "3");
  EXPECT_EQ(cast_value("3.5", kTypeInteger), "\"3.5\"");
  EXPECT_EQ(cast_value("3.50", kTypeNumber | kTypeInteger), "3.50") << "as it was written";
  EXPECT_EQ(cast_value("12345678901234567890123", kTypeNumber), "12345678901234567890123");
  EXPECT_EQ(cast_value("FALSE", kTypeBoolean), "false");
  EXPECT_EQ(cast_value("None", kTypeNull | kTypeInteger), "null");
  EXPECT_EQ(cast_value("{\"a\": 1}", kTypeObject), "{\"a\": 1}");
  EXPECT_EQ(cast_value("{'a': 1}", kTypeObject), "\"{'a': 1}\"");
  EXPECT_EQ(cast_value("true", kTypeString), "\"true\"");
  EXPECT_EQ(cast_value("5", kTypeString | kTypeInteger), "5");
  EXPECT_EQ(cast_value("x", kTypeString | kTypeInteger), "\"x\"");
  EXPECT_EQ(cast_value("", kTypeInteger), "\"\"");
}

TEST(ToolSchemas, text_is_escaped) {
  EXPECT_EQ(json_escaped("a\"b\\c\n\x01\t東"), "a\\\"b\\\\c\\n\\u0001\\u0009東");
  EXPECT_EQ(Json::parse('"' + json_escaped("a\"b\\c\n\x01\t東") + '"'), "a\"b\\c\n\x01\t東");
}

}  // namespace
}  // namespace tandem
