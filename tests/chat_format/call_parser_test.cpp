// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/call_parser.h"

#include <gtest/gtest.h>

#include "tests/chat_format/answers.h"

namespace tandem {
namespace {

using Kind = AnswerEvent::Kind;
using Start = ReasoningParser::Start;

AnswerEvents read(const char* calls, const std::string& text) {
  return parsed({calls, Start::kContent, text});
}

std::string step3_call(const std::string& parameters, const std::string& name = "weather") {
  return "<｜tool_calls_begin｜>\n<｜tool_call_begin｜>\nfunction<｜tool_sep｜><steptml:invoke name=\"" + name + "\">" +
         parameters + "</steptml:invoke><｜tool_call_end｜>\n<｜tool_calls_end｜>";
}
std::string parameter(const std::string& name, const std::string& value) {
  return "<steptml:parameter name=\"" + name + "\">" + value + "</steptml:parameter>";
}

TEST(CallParser, step3_values_get_the_types_of_the_schema) {
  const AnswerEvents events = read(
      "step3", "Well.\n" + step3_call(parameter("city", "\n Rome \"<b>\" \n") + "\n" + parameter("days", " 3 ") +
                                      parameter("exact", "True") + parameter("limits", "[1, {\"a\": \"</x>\"}]") +
                                      parameter("unit", "C") + parameter("note", "null") + parameter("unknown", "7")));
  ASSERT_EQ(events.size(), 4);
  EXPECT_EQ(events[0], (AnswerEvent{Kind::kContent, 0, "Well."}));
  EXPECT_EQ(events[1], (AnswerEvent{Kind::kCallBegin, 0, "weather"}));
  EXPECT_EQ(events[3], (AnswerEvent{Kind::kCallEnd, 0, ""}));
  EXPECT_EQ(Json::parse(events[2].text), Json::parse(R"({"city": "Rome \"<b>\"", "days": 3, "exact": true,
    "limits": [1, {"a": "</x>"}], "unit": "C", "note": null, "unknown": "7"})"))
      << events[2].text;
}

TEST(CallParser, step3_text_streams_while_it_comes) {
  CallParser parser(*find_call_syntax("step3"), std::make_shared<const ToolSchemas>(weather_tools()));
  AnswerEvents events;
  const std::string begin = step3_call(parameter("city", "New York "));
  parser.push(begin.substr(0, begin.find("York")), events);
  EXPECT_EQ(joined(events, Kind::kArguments), R"({"city": "New)") << "and the space waits for what follows";
  parser.push(begin.substr(begin.find("York")), events);
  EXPECT_EQ(joined(events, Kind::kArguments), R"({"city": "New York"})");
}

TEST(CallParser, step3_calls_without_parameters_and_with_odd_ones) {
  EXPECT_EQ(joined(read("step3", step3_call("")), Kind::kArguments), "{}");
  EXPECT_EQ(joined(read("step3", step3_call(parameter("days", "three"))), Kind::kArguments), R"({"days": "three"})");
  EXPECT_EQ(joined(read("step3", step3_call(parameter("city", ""))), Kind::kArguments), R"({"city": ""})");
  EXPECT_EQ(joined(read("step3", step3_call(parameter("a\\b", "x"))), Kind::kArguments), R"({"a\\b": "x"})");
}

TEST(CallParser, step3_garbage_between_parameters_ends_the_call) {
  const AnswerEvents events = read("step3", step3_call(parameter("days", "1") + "what?"));
  EXPECT_EQ(joined(events, Kind::kArguments), R"({"days": 1})");
  EXPECT_EQ(events[2].kind, Kind::kCallEnd);
  EXPECT_EQ(events[3].text, "what?</steptml:invoke><｜tool_call_end｜>\n<｜tool_calls_end｜>");
}

TEST(CallParser, what_is_no_call_stays_content_to_the_byte) {
  for (const char* text : {
           "<｜tool_calls_begin｜>\n<｜tool_call_begin｜>\nmethod<｜tool_sep｜><steptml:invoke name=\"f\">",
           "<｜tool_calls_begin｜>\n<｜tool_call_begin｜>\nfunction<steptml:invoke name=\"f\"></steptml:invoke>",
           "a \n<｜tool_calls_begin｜>  <｜tool_calls_end｜>  b",
           "<｜tool_calls_begin｜>",
           "function<｜tool_sep｜><steptml:invoke name=\"f\"></steptml:invoke>",
           "<｜tool_calls_begin｜><｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name=\"f\"",
           // Bars of ASCII, and the words of DeepSeek's tokens.
           "<|tool_calls_begin|>\n<|tool_call_begin|>\nfunction<|tool_sep|><steptml:invoke name=\"f\"></steptml:invoke>"
           "<|tool_call_end|>\n<|tool_calls_end|>",
           "<｜tool▁calls▁begin｜>\n<｜tool▁call▁begin｜>\nfunction<｜tool▁sep｜><steptml:invoke name=\"f\">"
           "</steptml:invoke><｜tool▁call▁end｜>\n<｜tool▁calls▁end｜>",
       })
    EXPECT_EQ(read("step3", text), (AnswerEvents{{Kind::kContent, 0, text}}));
  for (const char* text : {"<tool_call>", " <tool_call>\n[1]\n</tool_call> ", "<tool_call>{\"name\": \"f\"",
                           "<tool_call>{\"name\": \"f\", \"arguments\": 3}</tool_call>",
                           "<tool_call>{\"name\": \"two words\", \"arguments\": {}}</tool_call>",
                           "<tool_call>{\"nom\": \"f\"}</tool_call>", "<tool_call>{nothing}</tool_call>"})
    EXPECT_EQ(read("hermes", text), (AnswerEvents{{Kind::kContent, 0, text}}));
  for (const char* text : {"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```python\n{}",
                           "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>[]", "<｜tool▁calls▁begin｜>x"})
    EXPECT_EQ(read("deepseek_v3", text), (AnswerEvents{{Kind::kContent, 0, text}}));
}

TEST(CallParser, hermes_takes_keys_in_any_order_and_a_call_without_arguments) {
  AnswerEvents events = read("hermes", R"(<tool_call>{"arguments": {"b": 2, "a": 1}, "name": "f"}</tool_call>)");
  EXPECT_EQ(events[0].text, "f");
  EXPECT_EQ(Json::parse(joined(events, Kind::kArguments)), Json::parse(R"({"b": 2, "a": 1})"));
  events = read("hermes", R"(<tool_call>{"name": "f", "parameters": {"x": 1}}</tool_call>)");
  EXPECT_EQ(Json::parse(joined(events, Kind::kArguments)), Json::parse(R"({"x": 1})"));
  events = read("hermes", R"(<tool_call> {"name": "f"} </tool_call>)");
  EXPECT_EQ(joined(events, Kind::kArguments), "{}");
}

TEST(CallParser, several_calls_count_up_and_space_between_them_is_nothing) {
  const std::string one = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"i\": 1}}\n</tool_call>";
  const AnswerEvents events = read("hermes", one + "\n" + one + "\n\n");
  ASSERT_EQ(events.size(), 6);
  EXPECT_EQ(events[3], (AnswerEvent{Kind::kCallBegin, 1, "f"}));
}

TEST(CallParser, deepseek_in_both_notations) {
  const AnswerEvents events =
      read("deepseek_v3",
           "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": "
           "\"```\"}\n```<｜tool▁call▁end｜>\n"
           "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{\"b\": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>");
  EXPECT_EQ(events, (AnswerEvents{{Kind::kCallBegin, 0, "f"},
                                  {Kind::kArguments, 0, "{\"a\": \"```\"}"},
                                  {Kind::kCallEnd, 0, ""},
                                  {Kind::kCallBegin, 1, "g"},
                                  {Kind::kArguments, 1, "{\"b\": 1}"},
                                  {Kind::kCallEnd, 1, ""}}));
}

TEST(CallParser, a_cut_answer_has_cut_arguments) {
  const AnswerEvents events = read("hermes", R"(<tool_call>{"name": "f", "arguments": {"a": "x)");
  EXPECT_EQ(events, (AnswerEvents{{Kind::kCallBegin, 0, "f"}, {Kind::kArguments, 0, R"({"a": "x)"}}));
}

}  // namespace
}  // namespace tandem
