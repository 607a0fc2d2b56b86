// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What comes of an answer does not depend on how it comes: the property that every format must have, over answers that
// are right and answers that are wrong in every way that models have found.
#include "chat_format/answer_parser.h"

#include <gtest/gtest.h>

#include "tests/chat_format/answers.h"

namespace tandem {
namespace {

using Start = ReasoningParser::Start;
using Kind = AnswerEvent::Kind;

std::vector<AnswerCase> answers() {
  const std::string step3 =
      "<｜tool_calls_begin｜>\n<｜tool_call_begin｜>\nfunction<｜tool_sep｜><steptml:invoke name=\"weather\">"
      "<steptml:parameter name=\"city\"> a <b> \"c\" \n d\\ </steptml:parameter>\n<steptml:parameter "
      "name=\"days\">3</steptml:parameter></steptml:invoke><｜tool_call_end｜>\n<｜tool_call_begin｜>\nfunction"
      "<｜tool_sep｜><steptml:invoke name=\"other\"></steptml:invoke><｜tool_call_end｜>\n<｜tool_calls_end｜>";
  const std::string hermes =
      "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"a </tool_call> } \\\" b\"}}\n</tool_call>";
  const std::string deepseek =
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"東京\"}\n```"
      "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
  std::vector<AnswerCase> all = {
      {nullptr, Start::kContent, "a <think> b </think> c <tool_call>"},
      {nullptr, Start::kInside, "\n so it is \n\n</think>\n\n Yes </think> no"},
      {nullptr, Start::kInside, "never ends </thin"},
      {nullptr, Start::kEither, " \n<think>\nhm</think>ok"},
      {nullptr, Start::kEither, " \n<thing>hm</think>ok"},
      {nullptr, Start::kEither, "<thin"},
      {"step3", Start::kInside, "I call.\n</think>\nLook: \n" + step3 + "\nafter"},
      {"step3", Start::kContent, "<｜tool_calls_begin｜>\n<｜tool_calls_end｜>"},
      {"step3", Start::kContent, step3.substr(0, step3.size() / 2)},
      {"step3", Start::kContent, "a <｜tool_calls_begin｜> b" + step3},
      {"step3", Start::kContent, "<｜tool_call_begin｜>function<｜tool_sep｜>"},
      {"hermes", Start::kEither, "<think>a</think>\n\n" + hermes + "\n" + hermes + "\n"},
      {"hermes", Start::kContent,
       "x \n <tool_call>\n{\"arguments\": {\"b\": [1]}, \"name\": \"weather\"}\n</tool_call>"},
      {"hermes", Start::kContent, "x <tool_call> no </tool_call> <tool_call>{\"name\": 1}</tool_call> y"},
      {"hermes", Start::kContent, "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"never"},
      {"hermes", Start::kContent, "<tool_call>{\"name\": \"a b\", \"arguments\": {}}" + hermes},
      {"hermes", Start::kContent, "<tool_call>{\"name\": \"f\", \"arguments\": {}, \"id\": 1}</tool_call>"},
      {"deepseek_v3", Start::kContent, "Yes" + deepseek},
      {"deepseek_v3", Start::kContent, deepseek.substr(0, deepseek.size() - 40)},
      {"deepseek_v3", Start::kContent, "<｜tool▁calls▁begin｜>" + std::string(200, ' ') + "<｜tool▁call▁begin｜>"},
  };
  return all;
}

TEST(AnswerParser, every_cut_gives_the_same_events) {
  for (const AnswerCase& answer : answers()) {
    const AnswerEvents whole = parsed(answer);
    for (std::size_t cut = 0; cut <= answer.text.size(); ++cut)
      ASSERT_EQ(parsed(answer, {cut}), whole) << answer.text << "\ncut at " << cut;
    EXPECT_EQ(parsed(answer, std::vector<std::size_t>(answer.text.size(), 1)), whole) << answer.text;
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
      std::vector<std::size_t> sizes;
      for (std::size_t i = 0; i < answer.text.size(); ++i)
        sizes.push_back(static_cast<std::size_t>(random_at(seed, i) * 9));
      ASSERT_EQ(parsed(answer, sizes), whole) << answer.text << "\nseed " << seed;
    }
  }
}

TEST(AnswerParser, calls_come_in_order_and_end_once) {
  for (const AnswerCase& answer : answers()) {
    std::size_t begun = 0, ended = 0;
    for (const AnswerEvent& event : parsed(answer)) {
      if (event.kind == Kind::kCallBegin) {
        EXPECT_EQ(event.call, begun++);
        EXPECT_LE(begun, ended + 1) << answer.text;
      } else if (event.kind == Kind::kCallEnd) {
        EXPECT_EQ(event.call, ended++);
      } else if (event.kind == Kind::kArguments) {
        EXPECT_EQ(event.call + 1, begun);
      }
    }
    EXPECT_LE(ended, begun) << answer.text;
  }
}

TEST(AnswerParser, reasoning_then_content_then_calls) {
  const AnswerCase answer{"hermes", Start::kInside,
                          "Think.\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": "
                          "{\"city\": \"Rome\"}}\n</tool_call>"};
  EXPECT_EQ(parsed(answer), (AnswerEvents{{Kind::kReasoning, 0, "Think."},
                                          {Kind::kContent, 0, "I look."},
                                          {Kind::kCallBegin, 0, "weather"},
                                          {Kind::kArguments, 0, R"({"city": "Rome"})"},
                                          {Kind::kCallEnd, 0, ""}}));
}

TEST(AnswerParser, marks_within_reasoning_call_nothing) {
  const AnswerCase answer{"hermes", Start::kInside, "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>"};
  EXPECT_EQ(parsed(answer), (AnswerEvents{{Kind::kReasoning, 0, answer.text}}));
}

}  // namespace
}  // namespace tandem
