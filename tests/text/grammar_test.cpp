// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/grammar.h"

#include <gmock/gmock.h>

#include "base/format.h"
#include "tests/base/error_of.h"
#include "tests/text/grammar_walk.h"
#include "tests/text/text_goldens.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

class Grammars : public ::testing::Test {
 protected:
  static const Tokenizer& tokenizer() {
    static const Tokenizer open = golden_tokenizer("tokenizer_qwen");
    return open;
  }
  static std::vector<std::int32_t> stop_ids() { return {*tokenizer().find_token("<|im_end|>")}; }
  static const GrammarVocabulary& vocabulary() {
    static const GrammarVocabulary made(tokenizer(), stop_ids());
    return made;
  }
  // A terminal that doubles with every line.
  static std::string doubling() {
    std::string source = "start: A0\n";
    for (int i = 0; i < 60; ++i) source += format("A{}: A{} A{}\n", i, i + 1, i + 1);
    return source + "A60: \"b\"";
  }
  static Grammar compile(GrammarKind kind, std::string_view source) { return vocabulary().compile(kind, source); }
  // Whether text is an answer by the grammar.
  static bool takes(const Grammar& grammar, std::string_view text) {
    return follows(grammar, tokenizer(), stop_ids().front(), text);
  }
};

TEST_F(Grammars, json_schemas) {
  const Grammar grammar = compile(GrammarKind::kJsonSchema, R"({"type": "object", "properties": {
    "name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}}, "required": ["name"],
    "additionalProperties": false})");
  EXPECT_TRUE(takes(grammar, R"({"name": "Ann", "age": 41})"));
  EXPECT_TRUE(takes(grammar, R"({"name": "A\"n} 東"})"));
  EXPECT_FALSE(takes(grammar, R"({"age": 41})"));
  EXPECT_FALSE(takes(grammar, R"({"name": "Ann", "age": -1})"));
  EXPECT_FALSE(takes(grammar, R"({"name": "Ann")"));
  EXPECT_FALSE(takes(grammar, R"({"name": "Ann"} )"
                              "x"));
}

TEST_F(Grammars, white_space_in_json_ends) {
  const std::string indented = "{\n" + std::string(30, ' ') + "\"a\" : 1}",
                    endless = "{" + std::string(100, ' ') + "\"a\": 1}";
  const Grammar bounded = compile(GrammarKind::kJsonSchema, schema_source({{"type", "object"}}));
  EXPECT_TRUE(takes(bounded, indented));
  EXPECT_FALSE(takes(bounded, endless));
  const OrderedJson own = OrderedJson::parse(R"({"type": "object", "x-guidance": {"whitespace_flexible": false}})");
  EXPECT_FALSE(takes(compile(GrammarKind::kJsonSchema, schema_source(own)), indented)) << "as the schema says";
}

TEST_F(Grammars, regular_expressions_match_the_whole) {
  const Grammar grammar = compile(GrammarKind::kRegex, "[0-9]{3}-(a|bc)+");
  EXPECT_TRUE(takes(grammar, "123-abca"));
  EXPECT_FALSE(takes(grammar, "123-"));
  EXPECT_FALSE(takes(grammar, "1234-a"));
}

TEST_F(Grammars, choices_of_any_text) {
  const std::vector<std::string> texts = {"yes", "no \"maybe\"\n\\d", "東", "/x/ | y"};
  const Grammar grammar = compile(GrammarKind::kLark, lark_choice(texts));
  for (const std::string& text : texts) EXPECT_TRUE(takes(grammar, text)) << text;
  EXPECT_FALSE(takes(grammar, "ye"));
  EXPECT_FALSE(takes(grammar, "yesyes"));
}

TEST_F(Grammars, tokens_by_id_are_not_what_text_spells) {
  const std::int32_t call = *tokenizer().find_token("<tool_call>");
  Grammar grammar = compile(GrammarKind::kLark, "start: TEXT " + lark_token(call) + "\nTEXT: /[a-z<>_]+/");
  std::vector<std::uint32_t> words(tokenizer().vocab_size() / 32 + 1);
  ASSERT_TRUE(grammar.allowed({}, words));
  EXPECT_EQ(words[call / 32] >> (call % 32) & 1, 0u) << "there is a text before it";
  for (const std::int32_t id : tokenizer().encode("a<tool_call>")) ASSERT_TRUE(grammar.accept(id));
  EXPECT_FALSE(grammar.complete()) << "spelled";
  ASSERT_TRUE(grammar.accept(call));
  EXPECT_TRUE(grammar.complete());
}

TEST_F(Grammars, looking_ahead_changes_nothing) {
  Grammar grammar = compile(GrammarKind::kRegex, "(ab|cd)e*");
  std::vector<std::uint32_t> before(17), during(17), after(17);
  ASSERT_TRUE(grammar.allowed({}, before));
  const std::vector<std::int32_t> ahead = tokenizer().encode("cdee");
  ASSERT_TRUE(grammar.allowed(ahead, during));
  ASSERT_TRUE(grammar.allowed({}, after));
  EXPECT_EQ(before, after);
  EXPECT_NE(before, during);
  Grammar other = grammar.clone();
  for (const std::int32_t id : ahead) ASSERT_TRUE(other.accept(id));
  ASSERT_TRUE(other.allowed({}, after));
  EXPECT_EQ(during, after) << "as if the tokens had been accepted";
  ASSERT_TRUE(grammar.allowed({}, after));
  EXPECT_EQ(before, after) << "what another does is nothing to it";
}

TEST_F(Grammars, complete_is_where_nothing_may_follow) {
  Grammar grammar = compile(GrammarKind::kRegex, "ab");
  for (const std::int32_t id : tokenizer().encode("ab")) {
    EXPECT_FALSE(grammar.complete());
    ASSERT_TRUE(grammar.accept(id));
  }
  EXPECT_TRUE(grammar.complete());
  std::vector<std::uint32_t> words(17);
  ASSERT_TRUE(grammar.allowed({}, words));
  int count = 0;
  for (const std::uint32_t word : words) count += __builtin_popcount(word);
  EXPECT_EQ(count, 1) << "the token that ends the answer";
}

TEST_F(Grammars, a_token_that_is_not_allowed_is_an_error_of_this_grammar_alone) {
  Grammar grammar = compile(GrammarKind::kRegex, "ab"), other = grammar.clone();
  EXPECT_FALSE(grammar.accept(tokenizer().encode("z").front()));
  std::vector<std::uint32_t> words(17);
  EXPECT_FALSE(grammar.allowed({}, words));
  EXPECT_TRUE(other.allowed({}, words));
  EXPECT_FALSE(other.accept(1 << 30));
}

TEST_F(Grammars, bad_sources_say_what_is_wrong) {
  const auto error = [&](GrammarKind kind, const std::string& source) {
    return error_of([&] { compile(kind, source); }).message();
  };
  EXPECT_THAT(error(GrammarKind::kJsonSchema, R"({"type": "nothing"})"), HasSubstr("nothing"));
  EXPECT_NE(error(GrammarKind::kJsonSchema, "{"), "");
  EXPECT_NE(error(GrammarKind::kRegex, "(a"), "");
  EXPECT_NE(error(GrammarKind::kLark, "start: missing"), "");
  EXPECT_NE(error(GrammarKind::kLark, ""), "");
  EXPECT_NE(error(GrammarKind::kRegex, "\xff"), "");
  EXPECT_NE(error(GrammarKind::kJsonSchema, "false"), "") << "nothing satisfies it";
}

TEST_F(Grammars, nobody_waits_for_a_compiler_that_takes_too_long) {
  const GrammarVocabulary own(tokenizer(), stop_ids());  // what is late here is late nowhere else
  for (int i = 0; i < 4; ++i) {
    const Error error = error_of([&] { own.compile(GrammarKind::kLark, doubling(), {.ms_max = 1}); });
    EXPECT_EQ(error.code(), ErrorCode::kOutOfResources);
    EXPECT_THAT(error.message(), HasSubstr("not compiled within 1 ms"));
  }
  EXPECT_EQ(error_of([&] { own.compile(GrammarKind::kRegex, "a"); }).code(), ErrorCode::kUnavailable)
      << "few work without somebody who waits";
}

TEST_F(Grammars, sources_are_bounded_in_size_depth_and_work) {
  const auto error = [&](GrammarKind kind, const std::string& source) {
    return error_of([&] { compile(kind, source); }).message();
  };
  EXPECT_THAT(error(GrammarKind::kLark, std::string((64 << 10) + 1, 'a')), HasSubstr("65537 bytes, limit is 65536"));
  EXPECT_THAT(error(GrammarKind::kRegex, std::string(65, '(') + "a" + std::string(65, ')')),
              HasSubstr("brackets 65 deep, limit is 64"));
  EXPECT_NE(error(GrammarKind::kLark, doubling()), "") << "more than the fuel of a compiler builds";
  std::string chain = "start: r0\n";  // long, and an answer either way
  for (int i = 0; i < 2000; ++i) chain += format("r{}: \"a\" r{}\n", i, i + 1);
  try {
    EXPECT_TRUE(takes(compile(GrammarKind::kLark, chain + "r2000: \"b\""), std::string(2000, 'a') + "b"));
  } catch (const Error& error) {
    EXPECT_NE(error.message(), "");
  }
}

}  // namespace
}  // namespace tandem
