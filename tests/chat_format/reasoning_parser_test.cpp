// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/reasoning_parser.h"

#include <gtest/gtest.h>

#include <utility>

namespace tandem {
namespace {

using Start = ReasoningParser::Start;

// Reasoning and content.
std::pair<std::string, std::string> divided(Start start, std::string_view text) {
  ReasoningParser parser(start);
  AnswerEvents events;
  std::string content = parser.push(text, events);
  content += parser.finish(events);
  std::string reasoning;
  for (const AnswerEvent& event : events) {
    EXPECT_EQ(event.kind, AnswerEvent::Kind::kReasoning);
    reasoning += event.text;
  }
  return {reasoning, content};
}
using Parts = std::pair<std::string, std::string>;

TEST(ReasoningParser, divides_at_the_first_mark) {
  EXPECT_EQ(divided(Start::kInside, "\na b\n</think>\n\nc </think> d"), Parts("a b", "c </think> d"));
  EXPECT_EQ(divided(Start::kEither, "<think>\na\n</think>\n\nc"), Parts("a", "c"));
  EXPECT_EQ(divided(Start::kEither, "c <think>a</think>"), Parts("", "c <think>a</think>"));
  EXPECT_EQ(divided(Start::kContent, "<think>a</think>"), Parts("", "<think>a</think>"));
}

TEST(ReasoningParser, reasoning_that_never_ends_is_all_there_is) {
  EXPECT_EQ(divided(Start::kInside, "a </thi"), Parts("a </thi", ""));
  EXPECT_EQ(divided(Start::kEither, "<think>"), Parts("", ""));
  EXPECT_EQ(divided(Start::kEither, "<thin"), Parts("", "<thin"));
}

TEST(ReasoningParser, empty_reasoning_is_none) {
  EXPECT_EQ(divided(Start::kEither, "<think>\n\n</think>\n\nc"), Parts("", "c"));
  EXPECT_EQ(divided(Start::kInside, "\n</think>"), Parts("", ""));
}

TEST(ReasoningParser, knows_when_reasoning_is_over) {
  ReasoningParser parser(Start::kEither);
  AnswerEvents events;
  EXPECT_FALSE(parser.past_reasoning());
  parser.push("<think>a", events);
  EXPECT_FALSE(parser.past_reasoning());
  parser.push("</think>", events);
  EXPECT_TRUE(parser.past_reasoning());
}

}  // namespace
}  // namespace tandem
