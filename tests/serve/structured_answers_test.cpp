// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Answers of a given form over HTTP: what a model of random weights says has it all the same.
#include <gmock/gmock.h>

#include <regex>

#include "tests/serve/test_server.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

constexpr const char* kSchema = R"({"type": "object", "additionalProperties": false, "required": ["sure", "mood"],
  "properties": {"sure": {"type": "boolean"}, "mood": {"enum": ["good", "bad"]}}})";

void expect_mood(const std::string& text) {
  const Json answer = Json::parse(text, nullptr, false);
  ASSERT_TRUE(answer.is_object()) << text;
  EXPECT_EQ(answer.size(), 2) << text;
  EXPECT_TRUE(answer["sure"].is_boolean()) << text;
  EXPECT_TRUE(answer["mood"] == "good" || answer["mood"] == "bad") << text;
}

Json json_schema(const char* schema) {
  return {{"type", "json_schema"}, {"json_schema", {{"name", "n"}, {"strict", true}, {"schema", Json::parse(schema)}}}};
}

class StructuredAnswers : public ::testing::Test {
 protected:
  TestServer server_;
};

TEST_F(StructuredAnswers, have_the_form_that_was_asked_for) {
  const auto text = [&](Json fields) {
    fields["max_tokens"] = 400;
    fields["seed"] = 3;
    const HttpAnswer answer = server_.complete(fields);
    EXPECT_EQ(answer.status, 200) << answer.body;
    const Json choice = answer.json()["choices"][0];
    EXPECT_EQ(choice["finish_reason"], "stop") << choice;
    return choice["text"].get<std::string>();
  };
  expect_mood(text({{"response_format", json_schema(kSchema)}}));
  expect_mood(text({{"guided_json", Json::parse(kSchema)}, {"temperature", 0}}));
  EXPECT_THAT(text({{"guided_choice", {"north", "south"}}}), ::testing::AnyOf("north", "south"));
  const std::string date = text({{"guided_regex", "20[0-9]{2}-[01][0-9]"}, {"temperature", 2}});
  EXPECT_TRUE(std::regex_match(date, std::regex("20[0-9]{2}-[01][0-9]"))) << date;
  const std::string sum = text({{"guided_grammar", "start: n (\"+\" n){1,3}\nn: /[1-9]/"}});
  EXPECT_TRUE(std::regex_match(sum, std::regex("[1-9](\\+[1-9]){1,3}"))) << sum;
}

TEST_F(StructuredAnswers, each_of_n_by_itself_and_streamed_alike) {
  Json request{{"guided_regex", "[a-z]{3} [0-9]+(\\.[0-9]{2})?!"},
               {"n", 4},
               {"max_tokens", 60},
               {"temperature", 1.5},
               {"seed", 11},
               {"logit_bias", {{"33", 8}}}};
  const Json whole = server_.complete(request).json();
  std::map<int, std::string> texts;
  for (const Json& choice : whole["choices"]) {
    const std::string text = choice["text"];
    texts[choice["index"]] = text;
    const char* form = choice["finish_reason"] == "stop" ? "[a-z]{3} [0-9]+(\\.[0-9]{2})?!" : "[a-z]{3} [0-9.]+";
    EXPECT_TRUE(std::regex_match(text, std::regex(form))) << text;
  }
  EXPECT_EQ(texts.size(), 4);
  EXPECT_NE(texts[0], texts[1]);
  request["stream"] = true;
  std::map<int, std::string> streamed;
  for (const Json& event : events_of(server_.complete(request).body))
    if (event.is_object())
      for (const Json& choice : event["choices"]) streamed[choice["index"]] += choice["text"];
  EXPECT_EQ(streamed, texts);
}

TEST_F(StructuredAnswers, bad_sources_are_refused_with_their_reason) {
  const HttpAnswer answer = server_.chat({{"response_format", json_schema(R"({"type": "nothing"})")}});
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.error()["param"], "response_format.json_schema");
  EXPECT_EQ(answer.error()["type"], "invalid_request_error");
  EXPECT_THAT(answer.error()["message"], HasSubstr("nothing"));
}

// ---- with reasoning and calls; a bias makes the model of random weights stop thinking

class AfterReasoning : public ::testing::Test {
 protected:
  static TestServerConfig config(const std::string& layout) {
    TestServerConfig config;
    config.model = "tests/goldens/step3_text_bf16";
    config.layout = layout;
    return config;
  }
  static Json ask(const TestServer& server, Json fields) {
    const std::int32_t end = *server.model().tokenizer.find_token("</think>");
    fields["logit_bias"] = {{std::to_string(end), 20}};
    fields["max_tokens"] = 150;
    fields["temperature"] = 1;
    fields["seed"] = 5;
    const HttpAnswer answer = server.chat(fields);
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.json()["choices"][0];
  }
};

TEST_F(AfterReasoning, the_form_is_that_of_the_answer_alike_in_every_layout) {
  Json first;
  for (const char* layout : {"local", "1A1F", "2A2F"}) {
    const TestServer server(config(layout));
    for (int round = 0; round < 2; ++round) {  // the second finds the prompt in the cache
      const Json choice = ask(server, {{"response_format", json_schema(kSchema)}});
      EXPECT_EQ(choice["finish_reason"], "stop");
      expect_mood(choice["message"]["content"]);
      if (first.is_null()) first = choice;
      EXPECT_EQ(choice, first) << layout;
    }
  }
}

TEST_F(AfterReasoning, calls_come_when_they_must) {
  const TestServer server(config("1A1F"));
  const Json tools = Json::parse(R"([
    {"type": "function", "function": {"name": "unit", "parameters": {"type": "object", "required": ["unit", "days"],
      "properties": {"unit": {"type": "string", "enum": ["C", "F"]}, "days": {"type": "integer", "minimum": 1,
      "maximum": 9}}}}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "required": ["zone"],
      "properties": {"zone": {"type": "string", "enum": ["UTC", "local"]}}}}}])");
  const auto call = [&](const Json& tool_choice) {
    const Json choice = ask(server, {{"tools", tools}, {"tool_choice", tool_choice}, {"parallel_tool_calls", false}});
    EXPECT_EQ(choice["finish_reason"], "tool_calls") << choice;
    EXPECT_EQ(choice["message"]["tool_calls"].size(), 1);
    return choice["message"]["tool_calls"][0]["function"];
  };
  const Json unit = call({{"type", "function"}, {"function", {{"name", "unit"}}}});
  EXPECT_EQ(unit["name"], "unit");
  const Json arguments = Json::parse(unit["arguments"].get<std::string>());
  EXPECT_TRUE(arguments["unit"] == "C" || arguments["unit"] == "F") << arguments;
  EXPECT_TRUE(arguments["days"].is_number_integer()) << arguments;
  const Json any = call("required");
  EXPECT_TRUE(any["name"] == "unit" || any["name"] == "now");
}

}  // namespace
}  // namespace tandem
