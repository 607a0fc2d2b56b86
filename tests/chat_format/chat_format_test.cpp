// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/chat_format.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/text/text_goldens.h"

namespace tandem {
namespace {

using Reasoning = ChatFormat::Reasoning;
using Start = ReasoningParser::Start;

TEST(ChatFormat, is_found_by_what_a_model_knows) {
  const struct {
    const char* family;
    Reasoning reasoning;
    const char* calls;
  } kCases[] = {{"step3", Reasoning::kTagged, "step3"},
                {"qwen", Reasoning::kTagged, "hermes"},
                {"deepseek", Reasoning::kTagged, "deepseek_v3"},
                {"llama3", Reasoning::kNone, nullptr}};
  for (const auto& c : kCases) {
    const Tokenizer tokenizer = golden_tokenizer(std::string("tokenizer_") + c.family);
    const ChatFormat format = find_chat_format(tokenizer, tokenizer.chat_template());
    EXPECT_EQ(format.reasoning, c.reasoning) << c.family;
    EXPECT_EQ(format.calls, c.calls ? find_call_syntax(c.calls) : nullptr) << c.family;
  }
}

TEST(ChatFormat, a_template_counts_where_the_tokenizer_has_no_marks) {
  const Tokenizer tokenizer = golden_tokenizer("tokenizer_llama3");
  const ChatFormat format = find_chat_format(tokenizer, "… <think> … </think> <tool_call> …");
  EXPECT_EQ(format.reasoning, Reasoning::kTagged);
  EXPECT_EQ(format.calls, find_call_syntax("hermes"));
}

TEST(ChatFormat, names_win_and_unknown_ones_are_errors) {
  const Tokenizer tokenizer = golden_tokenizer("tokenizer_qwen");
  const ChatFormat format = find_chat_format(tokenizer, "", "step3", "deepseek_v31");
  EXPECT_EQ(format.reasoning, Reasoning::kAlways);
  EXPECT_EQ(format.calls, find_call_syntax("deepseek_v31"));
  EXPECT_EQ(find_chat_format(tokenizer, "", "none", "none").calls, nullptr);
  EXPECT_EQ(find_chat_format(tokenizer, "", "none", "none").reasoning, Reasoning::kNone);
  EXPECT_THROW(find_chat_format(tokenizer, "", "gpt", "auto"), Error);
  EXPECT_THROW(find_chat_format(tokenizer, "", "auto", "gpt"), Error);
}

TEST(ChatFormat, a_template_without_fences_is_the_later_one) {
  const Tokenizer tokenizer = golden_tokenizer("tokenizer_deepseek");
  EXPECT_EQ(find_chat_format(tokenizer, "<｜tool▁call▁begin｜> ```json").calls->name, "deepseek_v3");
  EXPECT_EQ(find_chat_format(tokenizer, "<｜tool▁call▁begin｜>").calls->name, "deepseek_v31");
}

TEST(ChatFormat, special_tokens_that_are_marks_are_named) {
  std::string json = read_golden("text/tokenizer_deepseek/tokenizer.json");
  EXPECT_TRUE(find_chat_format(golden_tokenizer("tokenizer_deepseek"), "").marks.empty())
      << "its marks are not special";
  Json document = Json::parse(json);
  for (Json& token : document["added_tokens"]) token["special"] = true;
  const Tokenizer tokenizer = Tokenizer::from_json(document.dump());
  std::vector<std::string> marks;
  for (const std::int32_t id : find_chat_format(tokenizer, "").marks) marks.push_back(tokenizer.token(id));
  EXPECT_EQ(marks, (std::vector<std::string>{"<think>", "</think>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>",
                                             "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"}));
}

TEST(ChatFormat, what_a_tool_answered_has_the_role_that_the_template_knows) {
  EXPECT_EQ(tool_role("{% if m.role == 'tool' or m.role == 'tool_response' %}"), "tool");
  EXPECT_EQ(tool_role("{% if m.role == 'tool_response' %}"), "tool_response");
  EXPECT_EQ(tool_role(""), "tool");
}

TEST(ChatFormat, the_prompt_says_where_an_answer_begins) {
  const ChatFormat none{Reasoning::kNone}, tagged{Reasoning::kTagged}, always{Reasoning::kAlways};
  EXPECT_EQ(none.start_after("x<think>\n"), Start::kContent);
  EXPECT_EQ(tagged.start_after("x<think>\n"), Start::kInside);
  EXPECT_EQ(tagged.start_after("<think>\n\n</think>\n\n"), Start::kContent);
  EXPECT_EQ(tagged.start_after("assistant\n"), Start::kEither);
  EXPECT_EQ(always.start_after("assistant\n"), Start::kInside);
  EXPECT_EQ(always.start_after("</think>"), Start::kContent);
}

}  // namespace
}  // namespace tandem
