// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Schemas in other words: what the words mean is asked of grammars made of them.
#include "text/json_schema.h"

#include <gmock/gmock.h>

#include "tests/base/error_of.h"
#include "tests/text/grammar_walk.h"
#include "tests/text/text_goldens.h"

namespace tandem {
namespace {

using testing::HasSubstr;

class JsonSchema : public testing::Test {
 protected:
  // Every answer of the first list, and none of the second.
  void expect_answers(const char* schema, const std::vector<std::string>& taken,
                      const std::vector<std::string>& refused) {
    SCOPED_TRACE(schema);
    const Grammar grammar = vocabulary_.compile(GrammarKind::kJsonSchema, schema_source(OrderedJson::parse(schema)));
    for (const std::string& answer : taken) EXPECT_TRUE(follows(grammar, tokenizer_, kStop, answer)) << answer;
    for (const std::string& answer : refused) EXPECT_FALSE(follows(grammar, tokenizer_, kStop, answer)) << answer;
  }

  static constexpr std::int32_t kStop = 2;
  const Tokenizer tokenizer_ = golden_tokenizer("tokenizer_qwen");
  const GrammarVocabulary vocabulary_{tokenizer_, std::span(&kStop, 1)};
};

std::string refusal(const char* schema) {
  return error_of([&] { enforceable_schema(OrderedJson::parse(schema)); }).message();
}

TEST_F(JsonSchema, OneOfExclusiveOptionsIsAnyOfThem) {
  expect_answers(R"({"oneOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]})", {"7", R"("a")", "null"},
                 {"true", "[]"});
  // As libraries write unions that a property tells apart.
  expect_answers(R"({"oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
    "discriminator": {"propertyName": "kind"}, "$defs": {
    "Cat": {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}},
            "required": ["kind", "lives"], "additionalProperties": false},
    "Dog": {"type": "object", "properties": {"kind": {"enum": ["dog", "puppy"]}, "name": {"type": "string"}},
            "required": ["kind", "name"], "additionalProperties": false}}})",
                 {R"({"kind": "cat", "lives": 9})", R"({"kind": "puppy", "name": "Rex"})"},
                 {R"({"kind": "cat", "name": "Tom"})", R"({"kind": "cow"})", R"({"lives": 9})"});
  expect_answers(R"({"oneOf": [{"type": "integer", "maximum": 3}, {"type": "integer", "minimum": 10}]})",
                 {"3", "-5", "10"}, {"4", "9"});
  expect_answers(R"({"type": "string", "oneOf": [{"maxLength": 2}, {"minLength": 4, "maxLength": 5}]})",
                 {R"("ab")", R"("abcd")"}, {R"("abc")", R"("abcdef")"});
  expect_answers(R"({"oneOf": [{"enum": ["a", "b"]}, {"enum": ["c", 1]}]})", {R"("a")", R"("c")", "1"}, {R"("d")"});
  // One is needed where the other leaves no room for it.
  expect_answers(R"({"oneOf": [
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false},
    {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"], "additionalProperties": false}]})",
                 {R"({"a": 1})", R"({"b": 1})"}, {R"({"a": 1, "b": 1})", "{}"});
  expect_answers(R"({"oneOf": [{"type": "boolean"}], "anyOf": [{"const": true}, {"const": 1}]})", {"true"},
                 {"1", "false"});
}

TEST(JsonSchemaRefusals, OneOfOptionsThatMayHoldTogetherIsNamed) {
  for (
      const char* options :
      {R"([{"type": "integer"}, {"type": "number"}])", R"([{"type": "string"}, {"maxLength": 3}])",
       R"([{"required": ["a"]}, {"required": ["b"]}])", R"([{}, {"type": "null"}])",
       R"([{"type": "integer", "maximum": 3}, {"type": "integer", "minimum": 3}])",
       R"([{"enum": [1, 2]}, {"enum": [2, 3]}])", R"([{"$ref": "#/a"}, {"$ref": "#/a"}])",
       R"([{"type": "object", "properties": {"k": {"const": 1}}}, {"type": "object", "properties": {"k": {"const": 2}}}])"})
    EXPECT_THAT(refusal((R"({"properties": {"x": {"oneOf": )" + std::string(options) + "}}}").c_str()),
                HasSubstr("schema, at /properties/x: oneOf cannot be enforced, for a value might satisfy its options 1 "
                          "and 2 together"))
        << options;
}

TEST_F(JsonSchema, NotIsSaidTheOtherWayRound) {
  expect_answers(R"({"not": {"type": ["string", "object", "array"]}})", {"1", "null", "true"}, {R"("a")", "{}", "[]"});
  expect_answers(R"({"enum": ["a", "b", "c"], "not": {"enum": ["b"]}})", {R"("a")", R"("c")"}, {R"("b")"});
  expect_answers(R"({"type": "boolean", "not": {"const": false}})", {"true"}, {"false"});
  expect_answers(R"({"type": "integer", "minimum": 0, "maximum": 9, "not": {"enum": [3, 4, 7]}})",
                 {"0", "2", "5", "6", "8", "9"}, {"3", "4", "7", "10", "-1"});
  expect_answers(R"({"type": ["string", "integer"], "not": {"const": null}})", {"1", R"("a")"}, {"null"});
  expect_answers(R"({"type": "string", "not": {"maxLength": 2}})", {R"("abc")"}, {R"("")", R"("ab")"});
  expect_answers(R"({"type": "array", "items": {"type": "integer"}, "not": {"minItems": 3}})", {"[]", "[1, 2]"},
                 {"[1, 2, 3]"});
  expect_answers(R"({"type": "number", "not": {"minimum": 0}})", {"-1", "-0.5"}, {"0", "1"});
  expect_answers(R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "additionalProperties": false, "not": {"required": ["a", "b"]}})",
                 {"{}", R"({"a": 1})", R"({"b": 1})"}, {R"({"a": 1, "b": 1})"});
  expect_answers(R"({"type": "integer", "not": {"anyOf": [{"minimum": 10}, {"maximum": 5}]}})", {"6", "9"},
                 {"5", "10"});
  expect_answers(R"({"not": {"not": {"type": "null"}}})", {"null"}, {"1"});
  expect_answers(R"({"type": "integer", "not": {"minimum": 3, "maximum": 5}})", {"2", "6"}, {"3", "4", "5"});
  expect_answers(R"({"type": "array", "items": {"type": "boolean", "not": {"const": true, "title": "x"}}})",
                 {"[false]"}, {"[true]"});
}

TEST(JsonSchemaRefusals, NotOfWhatHasNoOppositeIsNamed) {
  for (const char* schema :
       {R"({"type": "string", "not": {"const": "a"}})", R"({"type": "string", "not": {"pattern": "a"}})",
        R"({"not": {"type": "integer"}})", R"({"not": {"properties": {"a": {"type": "null"}}}})",
        R"({"not": {"$ref": "#/$defs/a"}})", R"({"not": {"enum": [1]}})", R"({"type": "number", "not": {"const": 1}})"})
    EXPECT_THAT(refusal(schema), HasSubstr("schema, at its root: not cannot be enforced here")) << schema;
}

TEST_F(JsonSchema, NamesOfPropertiesArePropertiesOrAPattern) {
  expect_answers(
      R"({"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "integer"}})",
      {"{}", R"({"a": 1})", R"({"a": 1, "b": 2})"}, {R"({"c": 1})", R"({"a": "x"})"});
  expect_answers(
      R"({"type": "object", "propertyNames": {"enum": ["a"]}, "properties": {"a": {"type": "null"}, "b": true}})",
      {R"({"a": null})"}, {R"({"b": 1})", R"({"a": 1})"});
  expect_answers(
      R"({"type": "object", "propertyNames": {"pattern": "^x[0-9]$"}, "additionalProperties": {"type": "null"}})",
      {"{}", R"({"x1": null})"}, {R"({"y": null})", R"({"x1": 1})"});
  expect_answers(R"({"type": "object", "propertyNames": {"type": "string"}})", {R"({"q": 1})"}, {"1"});
  EXPECT_THAT(refusal(R"({"propertyNames": {"minLength": 3}})"), HasSubstr("propertyNames can be enforced as an enum"));
  EXPECT_THAT(refusal(R"({"properties": {"a": true}, "propertyNames": {"pattern": "a"}})"),
              HasSubstr("propertyNames can be enforced as an enum"));
}

TEST_F(JsonSchema, WhatAPropertyBringsWithIt) {
  for (const char* word : {"dependentRequired", "dependencies"})
    expect_answers((R"({"type": "object", "properties": {"card": {"type": "integer"}, "name": {"type": "string"}},
      "additionalProperties": false, ")" +
                    std::string(word) + R"(": {"card": ["name"]}})")
                       .c_str(),
                   {"{}", R"({"name": "A"})", R"({"card": 1, "name": "A"})"}, {R"({"card": 1})"});
  expect_answers(R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "additionalProperties": false, "dependentSchemas": {"a": {"properties": {"b": {"maximum": 3}}}}})",
                 {"{}", R"({"b": 9})", R"({"a": 1, "b": 3})", R"({"a": 1})"}, {R"({"a": 1, "b": 9})"});
}

TEST(JsonSchemaRewriting, LeavesEverythingElseAlone) {
  for (const char* text :
       {R"({"type":"object","properties":{"b":{"type":"string"},"a":{"$ref":"#/$defs/x"}},"$defs":{"x":{}}})", "true",
        R"({"allOf":[{"minimum":3}],"anyOf":[true]})", R"({"const":{"oneOf":[1],"not":2}})",
        R"({"properties":{"not":{"type":"null"},"oneOf":{"type":"null"}}})", R"({"oneOf":3})"})
    EXPECT_EQ(enforceable_schema(OrderedJson::parse(text)).dump(), text);
  EXPECT_EQ(enforceable_schema(OrderedJson::parse(R"({"items":{"uniqueItems":false}})")).dump(), R"({"items":{}})");
}

// References that go in circles, and more questions than an answer is worth.
TEST(JsonSchemaRewriting, Ends) {
  EXPECT_THAT(refusal(R"({"oneOf": [{"$ref": "#"}, {"$ref": "#"}]})"), HasSubstr("oneOf cannot be enforced"));
  OrderedJson many = OrderedJson::array();
  for (int i = 0; i < 300; ++i) many.push_back({{"minLength", i}});
  OrderedJson deep = {{"anyOf", many}};
  EXPECT_THAT(refusal(OrderedJson{{"oneOf", {deep, deep}}}.dump().c_str()), HasSubstr("oneOf cannot be enforced"));
}

}  // namespace
}  // namespace tandem
