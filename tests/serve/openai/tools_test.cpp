// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/openai/tools.h"

#include <gmock/gmock.h>

#include "base/format.h"
#include "tests/serve/openai/step3_requests.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

class Tools : public Step3Requests {
 protected:
  static OrderedJson body() {
    return {{"messages", {{{"role", "user"}, {"content", "Weather in Rome?"}}}},
            {"tools", OrderedJson::parse(R"([{"type": "function", "function": {"name": "weather", "strict": true,
               "description": "d", "parameters": {"type": "object", "properties": {"days": {"type": "integer"}}}}}])")}};
  }
  std::string prompt(const CompletionRequest& request) const {
    return model().tokenizer.decode(request.prompts.front().ids);
  }
};

TEST_F(Tools, go_to_the_template_and_to_who_reads_the_answer) {
  const CompletionRequest request = read(body());
  EXPECT_THAT(prompt(request), HasSubstr(R"({"type": "function", "function": {"name": "weather", "description": "d", )"
                                         R"("parameters": {"type": "object")"))
      << "without what is for the server, in the order of the client";
  EXPECT_EQ(request.calls, find_call_syntax("step3"));
  EXPECT_EQ(request.schemas->types("weather", "days"), kTypeInteger);
  EXPECT_EQ(request.start, ReasoningParser::Start::kInside) << "the template opens it";
  EXPECT_TRUE(request.parallel_calls);
}

TEST_F(Tools, that_may_not_be_called_are_not_shown) {
  OrderedJson none = body();
  none["tool_choice"] = "none";
  EXPECT_EQ(read(none).calls, nullptr);
  EXPECT_EQ(prompt(read(none)).find("weather"), std::string::npos);
  OrderedJson without = body();
  without["tools"] = OrderedJson::array();
  EXPECT_EQ(read(without).calls, nullptr);
}

TEST_F(Tools, refuse_what_does_not_hold_together) {
  const auto with = [](const char* json) {
    OrderedJson request = body();
    request.update(OrderedJson::parse(json));
    return request;
  };
  const struct {
    const char* fields;
    const char* param;
  } kCases[] = {
      {R"({"tools": {}})", "tools"},
      {R"({"tools": [3]})", "tools[0]"},
      {R"({"tools": [{"function": {"name": "f"}}]})", "tools[0].type"},
      {R"({"tools": [{"type": "retrieval"}]})", "tools[0].type"},
      {R"({"tools": [{"type": "function", "function": {}}]})", "tools[0].function.name"},
      {R"({"tools": [{"type": "function", "function": {"name": "two words"}}]})", "tools[0].function.name"},
      {R"({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]})",
       "tools[0].function.parameters"},
      {R"({"tools": [{"type": "function", "function": {"name": "f", "strict": 1}}]})", "tools[0].function.strict"},
      {R"({"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "f"}}]})",
       "tools[1].function.name"},
      {R"({"tool_choice": "sometimes"})", "tool_choice"},
      {R"({"tool_choice": {"type": "function", "function": {"name": "other"}}})", "tool_choice.function.name"},
      {R"({"tools": [], "tool_choice": "required"})", "tool_choice"},
  };
  for (const auto& c : kCases) {
    const ApiError known = error(with(c.fields));
    EXPECT_EQ(known.status, 400) << c.fields;
    EXPECT_EQ(known.param, c.param) << c.fields;
  }
}

TEST_F(Tools, have_limits) {
  limits_.tools_max = 1;
  OrderedJson many = body();
  many["tools"].push_back(many["tools"][0]);
  EXPECT_THAT(error(many).message(), HasSubstr("--tools-max"));
  limits_.tool_bytes_max = 300;
  OrderedJson large = body();
  large["tools"][0]["function"]["description"] = std::string(300, 'a');
  EXPECT_THAT(error(large).message(), HasSubstr("--tool-bytes-max"));
}

TEST_F(Tools, need_a_model_that_knows_how_to_call) {
  scope_.format.calls = nullptr;
  EXPECT_EQ(error(body()).param, "tools");
}

TEST_F(Tools, calls_of_earlier_messages_go_through_the_template) {
  OrderedJson request = body();
  request["messages"] = OrderedJson::parse(R"([{"role": "user", "content": "a"},
    {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function",
      "function": {"name": "weather", "arguments": "{\"z\": \"<|EOT|>\", \"a\": 2}"}}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}])");
  const CompletionRequest read_request = read(request);
  EXPECT_THAT(prompt(read_request),
              HasSubstr("<steptml:invoke name=\"weather\"><steptml:parameter name=\"z\"><|EOT|></steptml:parameter>"
                        "<steptml:parameter name=\"a\">2</steptml:parameter></steptml:invoke>"));
  EXPECT_THAT(prompt(read_request), HasSubstr("<|BOT|>tool_response\n sunny <|EOT|>"));
  const auto end_of_turn = *model().tokenizer.find_token("<|EOT|>");
  EXPECT_EQ(std::ranges::count(read_request.prompts.front().ids, end_of_turn), 3) << "what a value spells stays text";
}

TEST_F(Tools, calls_of_earlier_messages_must_be_calls) {
  for (const char* calls : {R"({})", R"([1])", R"([{"type": "function", "function": {"name": "f"}}])",
                            R"([{"type": "function", "function": {"name": "f", "arguments": {}}}])",
                            R"([{"type": "function", "function": {"name": "f", "arguments": "{"}}])",
                            R"([{"type": "function", "function": {"name": "f", "arguments": "[]"}}])",
                            R"([{"id": 3, "type": "function", "function": {"name": "f", "arguments": "{}"}}])"}) {
    OrderedJson request = body();
    request["messages"].push_back({{"role", "assistant"}, {"content", ""}, {"tool_calls", OrderedJson::parse(calls)}});
    if (OrderedJson::parse(calls).empty()) request["messages"][1]["tool_calls"] = 5;
    EXPECT_THAT(error(request).param, HasSubstr("messages[1].tool_calls")) << calls;
  }
  OrderedJson other = body();
  other["messages"][0]["tool_calls"] = OrderedJson::parse(R"([{"id": "1"}])");
  EXPECT_EQ(error(other).param, "messages[0].tool_calls") << "only assistants call";
}

}  // namespace
}  // namespace tandem
