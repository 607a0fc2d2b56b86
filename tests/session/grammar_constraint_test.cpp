// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "session/grammar_constraint.h"

#include <gtest/gtest.h>

#include "tests/text/grammar_walk.h"

namespace tandem {
namespace {

using Start = ReasoningParser::Start;

class Constraint : public ::testing::Test {
 protected:
  static const OpenModel& model() {
    static const OpenModel open = open_model("tests/goldens/step3_text_bf16");
    return open;
  }
  static GrammarConstraint make(Start start, std::string_view regex = "ab+") {
    static const GrammarVocabulary vocabulary(model().tokenizer, model().stop_ids);
    return {vocabulary.compile(GrammarKind::kRegex, regex), model(), start};
  }
  static std::int32_t id(std::string_view token) { return *model().tokenizer.find_token(token); }
  std::vector<std::uint32_t> allowed(GrammarConstraint& constraint, std::span<const std::int32_t> after = {}) {
    std::vector<std::uint32_t> words(16);
    EXPECT_TRUE(constraint.allowed(after, words));
    return words;
  }
};

TEST_F(Constraint, begins_at_once_without_reasoning) {
  GrammarConstraint constraint = make(Start::kContent);
  EXPECT_TRUE(is_allowed(allowed(constraint), id("a")));
  EXPECT_FALSE(is_allowed(allowed(constraint), id("b")));
  EXPECT_FALSE(is_allowed(allowed(constraint), id("<think>")));
  ASSERT_TRUE(constraint.commit(id("a")));
  EXPECT_TRUE(is_allowed(allowed(constraint), id("b")));
  EXPECT_FALSE(is_allowed(allowed(constraint), model().stop_ids.front()));
  ASSERT_TRUE(constraint.commit(id("b")));
  EXPECT_TRUE(is_allowed(allowed(constraint), model().stop_ids.front()));
  EXPECT_FALSE(constraint.complete());
}

TEST_F(Constraint, begins_where_reasoning_ends) {
  GrammarConstraint constraint = make(Start::kInside);
  EXPECT_TRUE(is_allowed(allowed(constraint), id("z")));
  EXPECT_FALSE(is_allowed(allowed(constraint), model().stop_ids.front())) << "the answer is still to come";
  ASSERT_TRUE(constraint.commit(id("z")));
  const std::vector<std::int32_t> ahead = {id("z"), id("</think>"), id("a")};
  EXPECT_TRUE(is_allowed(allowed(constraint, ahead), id("b")));
  EXPECT_FALSE(is_allowed(allowed(constraint, ahead), id("z")));
  EXPECT_TRUE(is_allowed(allowed(constraint), id("z"))) << "looking ahead changed nothing";
  ASSERT_TRUE(constraint.commit(id("</think>")));
  EXPECT_FALSE(is_allowed(allowed(constraint), id("z")));
  EXPECT_TRUE(is_allowed(allowed(constraint), id("a")));
}

TEST_F(Constraint, a_mark_that_is_spelled_ends_reasoning_as_well) {
  GrammarConstraint constraint = make(Start::kInside);
  for (const std::int32_t token : model().tokenizer.encode("so</think>")) ASSERT_TRUE(constraint.commit(token));
  EXPECT_FALSE(is_allowed(allowed(constraint), id("z")));
}

TEST_F(Constraint, a_model_may_begin_with_reasoning_or_not) {
  GrammarConstraint thinks = make(Start::kEither), answers = make(Start::kEither);
  EXPECT_TRUE(is_allowed(allowed(thinks), id("<think>")));
  EXPECT_TRUE(is_allowed(allowed(thinks), id("a")));
  EXPECT_FALSE(is_allowed(allowed(thinks), id("z")));
  ASSERT_TRUE(thinks.commit(id("<think>")));
  EXPECT_TRUE(is_allowed(allowed(thinks), id("z")));
  ASSERT_TRUE(answers.commit(id("a")));
  EXPECT_FALSE(is_allowed(allowed(answers), id("<think>")));
}

TEST_F(Constraint, says_when_nothing_may_follow) {
  GrammarConstraint constraint = make(Start::kContent, "a");
  EXPECT_FALSE(constraint.complete());
  ASSERT_TRUE(constraint.commit(id("a")));
  EXPECT_TRUE(constraint.complete());
  EXPECT_FALSE(make(Start::kContent).commit(id("z")));
}

}  // namespace
}  // namespace tandem
