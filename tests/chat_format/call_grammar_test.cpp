// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Calls that must come are the calls that the parsers read.
#include "chat_format/call_grammar.h"

#include <gtest/gtest.h>

#include "tests/chat_format/answers.h"
#include "tests/text/grammar_walk.h"
#include "tests/text/text_goldens.h"

namespace tandem {
namespace {

OrderedJson two_tools() {
  OrderedJson tools = weather_tools();
  tools[0]["function"]["parameters"]["required"] = {"city"};
  tools[0]["function"]["strict"] = true;
  tools.push_back(OrderedJson::parse(R"({"type": "function", "function": {"name": "now"}})"));
  return tools;
}

struct Family {
  Tokenizer tokenizer;
  const CallSyntax* syntax;
  std::vector<std::int32_t> stop_ids;
  GrammarVocabulary vocabulary;

  Family(const char* folder, const char* name, const char* end)
      : tokenizer(golden_tokenizer(folder)),
        syntax(find_call_syntax(name)),
        stop_ids{*tokenizer.find_token(end)},
        vocabulary(tokenizer, stop_ids) {}
  bool takes(const CallGrammarOptions& options, std::string_view text) const {
    const Grammar grammar =
        vocabulary.compile(GrammarKind::kLark, call_grammar(*syntax, two_tools(), tokenizer, options));
    return follows(grammar, tokenizer, stop_ids.front(), text);
  }
};

const Family& step3() {
  static const Family family("tokenizer_step3", "step3", "<|EOT|>");
  return family;
}
const Family& qwen() {
  static const Family family("tokenizer_qwen", "hermes", "<|im_end|>");
  return family;
}

std::string step3_call(const std::string& parameters) {
  return "<｜tool_call_begin｜>\nfunction<｜tool_sep｜><steptml:invoke name=\"weather\">" + parameters +
         "</steptml:invoke><｜tool_call_end｜>\n";
}
std::string step3_block(const std::string& calls) {
  return "<｜tool_calls_begin｜>\n" + calls + "<｜tool_calls_end｜>";
}
constexpr const char* kCity = "<steptml:parameter name=\"city\">a <b> c</steptml:parameter>";

TEST(CallGrammar, step3) {
  const std::string call = step3_call(std::string(kCity) + "<steptml:parameter name=\"days\">3</steptml:parameter>");
  EXPECT_TRUE(step3().takes({}, step3_block(call)));
  EXPECT_TRUE(step3().takes({}, step3_block(call + call)));
  EXPECT_FALSE(step3().takes({.several = false}, step3_block(call + call)));
  EXPECT_FALSE(step3().takes({}, step3_block("")));
  EXPECT_FALSE(step3().takes({}, "text"));
  EXPECT_FALSE(step3().takes({}, step3_block(step3_call("")))) << "the city is required";
  EXPECT_FALSE(step3().takes(
      {}, step3_block(step3_call(std::string(kCity) + "<steptml:parameter name=\"days\">x</steptml:parameter>"))));
  EXPECT_TRUE(step3().takes(
      {}, step3_block(step3_call(std::string(kCity) + "<steptml:parameter name=\"unit\">C</steptml:parameter>"))));
  EXPECT_FALSE(step3().takes(
      {}, step3_block(step3_call(std::string(kCity) + "<steptml:parameter name=\"unit\">K</steptml:parameter>"))));
  EXPECT_FALSE(step3().takes({.only = "now"}, step3_block(call)));
  // What may come is what the parser reads.
  const AnswerEvents events = parsed({"step3", ReasoningParser::Start::kContent, step3_block(call)});
  EXPECT_EQ(Json::parse(joined(events, AnswerEvent::Kind::kArguments)),
            Json::parse(R"({"city": "a <b> c", "days": 3})"));
}

TEST(CallGrammar, hermes) {
  const std::string call = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"R\"}}\n</tool_call>";
  const std::string now = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
  EXPECT_TRUE(qwen().takes({}, call));
  EXPECT_TRUE(qwen().takes({}, now + "\n" + call));
  EXPECT_TRUE(qwen().takes({.only = "now"}, now));
  EXPECT_FALSE(qwen().takes({.only = "now"}, call));
  EXPECT_FALSE(qwen().takes({}, "<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n</tool_call>"));
  EXPECT_FALSE(qwen().takes({}, "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>"));
}

TEST(CallGrammar, with_text_around_only_strict_tools_are_held_to_their_schema) {
  const CallGrammarOptions options{.with_text = true};
  ASSERT_TRUE(may_stand_in_text(*qwen().syntax, qwen().tokenizer));
  EXPECT_TRUE(qwen().takes(options, "Just < text."));
  EXPECT_TRUE(qwen().takes(
      options, "Look: <tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"R\"}}\n</tool_call>"));
  EXPECT_FALSE(
      qwen().takes(options, "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"town\": 1}}\n</tool_call>"));
  EXPECT_TRUE(qwen().takes(options, "<tool_call>\n{\"name\": \"now\", \"arguments\": {\"any\": [1]}}\n</tool_call>"));
}

TEST(CallGrammar, deepseek_in_both_notations_and_marks_that_are_no_tokens) {
  const Family v3("tokenizer_deepseek", "deepseek_v3", "<｜end▁of▁sentence｜>");
  EXPECT_TRUE(v3.takes({},
                       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```"
                       "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"));
  const Family v31("tokenizer_deepseek", "deepseek_v31", "<｜end▁of▁sentence｜>");
  EXPECT_TRUE(v31.takes({},
                        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
                        "<｜tool▁calls▁end｜>"));
  const Family plain("tokenizer_llama3", "hermes", "<|eot_id|>");
  EXPECT_TRUE(plain.takes({}, "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>"));
}

// The mark of a call is spelled by text tokens here, which may be cut anywhere.
TEST(CallGrammar, text_is_told_from_calls_whose_mark_is_no_token) {
  const Family plain("tokenizer_llama3", "hermes", "<|eot_id|>");
  ASSERT_FALSE(plain.tokenizer.find_token("<tool_call>"));
  ASSERT_TRUE(may_stand_in_text(*plain.syntax, plain.tokenizer));
  const CallGrammarOptions options{.with_text = true}, one{.several = false, .with_text = true};
  const std::string call = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"R\"}}\n</tool_call>";
  const std::string wrong = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"town\": 1}}\n</tool_call>";
  for (const std::string& text :
       {std::string(), std::string("Just < text <tool_ call> </tool_call> <"), std::string("It ends in <tool_call")}) {
    EXPECT_TRUE(plain.takes(options, text)) << text;
    EXPECT_TRUE(plain.takes(options, text + " " + call)) << text;
    EXPECT_TRUE(plain.takes(options, text + call + "\nso " + call + " done <")) << text;
    EXPECT_FALSE(plain.takes(options, text + wrong)) << text;
    EXPECT_FALSE(plain.takes(options, call + text + wrong)) << text;
    EXPECT_FALSE(plain.takes(options, text + "<tool_call>")) << text;
    EXPECT_FALSE(plain.takes(options, text + "<tool_call> no call")) << text;
    EXPECT_TRUE(plain.takes(one, call + text)) << text;
    EXPECT_FALSE(plain.takes(one, call + text + call)) << text;
  }
  const Family step3_of_text("tokenizer_llama3", "step3", "<|eot_id|>");
  EXPECT_FALSE(may_stand_in_text(*step3_of_text.syntax, step3_of_text.tokenizer));
}

}  // namespace
}  // namespace tandem
