// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/openai/structured.h"

#include <gmock/gmock.h>

#include "base/format.h"
#include "tests/serve/openai/step3_requests.h"
#include "tests/text/grammar_walk.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

class Structured : public Step3Requests {
 protected:
  static OrderedJson body(const char* fields) {
    OrderedJson body{{"messages", {{{"role", "user"}, {"content", "a"}}}}};
    body.update(OrderedJson::parse(fields));
    return body;
  }
  CompletionRequest read(const char* fields) const { return Step3Requests::read(body(fields)); }
  ApiError error(const char* fields) const { return Step3Requests::error(body(fields)); }
  bool takes(const char* fields, std::string_view text) const {
    const CompletionRequest request = read(fields);
    return request.grammar && follows(*request.grammar, model().tokenizer, model().stop_ids.front(), text);
  }
};

TEST_F(Structured, every_way_of_asking) {
  EXPECT_EQ(read("{}").grammar, nullptr);
  EXPECT_EQ(read(R"({"response_format": {"type": "text"}})").grammar, nullptr);
  const char* object = R"({"response_format": {"type": "json_object"}})";
  EXPECT_TRUE(takes(object, R"({"a": [1]})"));
  EXPECT_FALSE(takes(object, "[1]"));
  for (
      const char* schema :
      {R"({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true,
            "schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}})",
       R"({"guided_json": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}})",
       R"({"guided_json": "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}}, \"required\": [\"a\"]}"})",
       R"({"structured_outputs": {"json": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}})"}) {
    EXPECT_TRUE(takes(schema, R"({"a": 1})")) << schema;
    EXPECT_FALSE(takes(schema, R"({"a": "1"})")) << schema;
  }
  EXPECT_TRUE(takes(R"({"guided_regex": "a+"})", "aa"));
  EXPECT_TRUE(takes(R"({"structured_outputs": {"regex": "a+"}})", "aa"));
  EXPECT_TRUE(takes(R"({"guided_choice": ["x y", "z"]})", "x y"));
  EXPECT_FALSE(takes(R"({"guided_choice": ["x y", "z"]})", "x"));
  EXPECT_TRUE(takes(R"({"guided_grammar": "start: \"a\" b\nb: \"b\"*"})", "abb"));
}

TEST_F(Structured, what_is_wrong_is_a_400_that_names_it) {
  const struct {
    const char* fields;
    const char* param;
  } kCases[] = {
      {R"({"response_format": "json"})", "response_format"},
      {R"({"response_format": {"type": "xml"}})", "response_format.type"},
      {R"({"response_format": {"type": "json_schema"}})", "response_format.json_schema"},
      {R"({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}}})",
       "response_format.json_schema"},
      {R"({"guided_json": 3})", "guided_json"},
      {R"({"guided_json": "{"})", "guided_json"},
      {R"({"guided_regex": "(a"})", "guided_regex"},
      {R"({"guided_json": "[1]"})", "guided_json"},
      {R"({"guided_choice": []})", "guided_choice"},
      {R"({"guided_choice": [""]})", "guided_choice"},
      {R"({"guided_grammar": "start: nowhere"})", "guided_grammar"},
      {R"({"structured_outputs": {"xml": 1}})", "structured_outputs.xml"},
      {R"({"guided_regex": "a", "guided_choice": ["b"]})", "guided_choice"},
      {R"({"guided_regex": "a", "ignore_eos": true})", "ignore_eos"},
      {R"({"guided_regex": "a", "tools": [{"type": "function", "function": {"name": "f"}}]})", "guided_regex"},
  };
  for (const auto& c : kCases) {
    const ApiError known = error(c.fields);
    EXPECT_EQ(known.status, 400) << c.fields;
    EXPECT_EQ(known.param, c.param) << c.fields;
    EXPECT_GT(known.message().size(), known.param.size()) << "and says why";
  }
}

TEST_F(Structured, calls_that_must_come) {
  const char* tools =
      R"("tools": [{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g"}}])";
  const auto call = [](const std::string& name) {
    return "<｜tool_call_begin｜>\nfunction<｜tool_sep｜><steptml:invoke name=\"" + name +
           "\"></steptml:invoke><｜tool_call_end｜>\n";
  };
  const auto block = [](const std::string& calls) {
    return "<｜tool_calls_begin｜>\n" + calls + "<｜tool_calls_end｜>";
  };
  const std::string required = std::string(R"({"tool_choice": "required", )") + tools + "}";
  EXPECT_TRUE(takes(required.c_str(), block(call("f") + call("g"))));
  EXPECT_FALSE(takes(required.c_str(), "text"));
  const std::string one = std::string(R"({"tool_choice": "required", "parallel_tool_calls": false, )") + tools + "}";
  EXPECT_FALSE(takes(one.c_str(), block(call("f") + call("g"))));
  const std::string named =
      std::string(R"({"tool_choice": {"type": "function", "function": {"name": "g"}}, )") + tools + "}";
  EXPECT_TRUE(takes(named.c_str(), block(call("g"))));
  EXPECT_FALSE(takes(named.c_str(), block(call("f"))));
  EXPECT_EQ(read((std::string("{") + tools + "}").c_str()).grammar, nullptr) << "nothing must, nothing is strict";
}

TEST_F(Structured, json_may_come_instead_of_calls) {
  const auto asked = [](const char* choice) {
    return format(R"({{"response_format": {{"type": "json_object"}}, "tool_choice": {},
      "tools": [{{"type": "function", "function": {{"name": "f"}}}}]}})",
                  choice);
  };
  const std::string call =
      "<｜tool_calls_begin｜>\n<｜tool_call_begin｜>\nfunction<｜tool_sep｜><steptml:invoke name=\"f\">"
      "</steptml:invoke><｜tool_call_end｜>\n<｜tool_calls_end｜>";
  EXPECT_TRUE(takes(asked("\"auto\"").c_str(), R"({"a": 1})"));
  EXPECT_TRUE(takes(asked("\"auto\"").c_str(), call));
  EXPECT_FALSE(takes(asked("\"auto\"").c_str(), "text"));
  EXPECT_TRUE(takes(asked("\"required\"").c_str(), call));
  EXPECT_FALSE(takes(asked("\"required\"").c_str(), R"({"a": 1})"));
  EXPECT_FALSE(takes(asked("\"none\"").c_str(), call));
  const ApiError bad = error(R"({"guided_json": {"type": "nothing"}, "tools":
    [{"type": "function", "function": {"name": "f"}}]})");
  EXPECT_EQ(bad.param, "guided_json") << "whose schema it is";
}

TEST_F(Structured, sources_have_the_limits_of_the_settings) {
  limits_.grammar.bytes_max = 1024;
  EXPECT_THAT(error(format(R"({{"guided_regex": "{}"}})", std::string(1025, 'a')).c_str()).message(),
              HasSubstr("guided_regex: grammar: 1025 bytes, limit is 1024"));
  limits_.grammar.depth_max = 4;
  EXPECT_THAT(error(R"x({"guided_regex": "(((((a)))))"})x").message(), HasSubstr("limit is 4"));
  limits_.json_keys_max = 2;  // as many as the request has
  EXPECT_THAT(error(R"({"guided_json": "{\"type\": \"array\", \"minItems\": 1, \"maxItems\": 2}"})").message(),
              HasSubstr("guided_json is no JSON schema"))
      << "they hold for a schema that is a text, too";
}

TEST_F(Structured, strict_tools_bind_the_arguments_of_calls_that_may_come) {
  const char* fields = R"({"tools": [{"type": "function", "function": {"name": "f", "strict": true,
    "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}}]})";
  EXPECT_TRUE(takes(fields, "No call."));
  const auto call = [](const std::string& value) {
    return "So: <｜tool_calls_begin｜>\n<｜tool_call_begin｜>\nfunction<｜tool_sep｜><steptml:invoke name=\"f\">"
           "<steptml:parameter name=\"n\">" +
           value + "</steptml:parameter></steptml:invoke><｜tool_call_end｜>\n<｜tool_calls_end｜>";
  };
  EXPECT_TRUE(takes(fields, call("3")));
  EXPECT_FALSE(takes(fields, call("x")));
}

}  // namespace
}  // namespace tandem
