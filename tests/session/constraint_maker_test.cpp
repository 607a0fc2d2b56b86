// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "session/constraint_maker.h"

#include <gtest/gtest.h>

#include "base/format.h"
#include "tests/base/error_of.h"

namespace tandem {
namespace {

using Start = ReasoningParser::Start;

constexpr const char* kModel = "tests/goldens/step3_text_bf16";

std::vector<std::uint32_t> allowed(TokenConstraint& constraint) {
  std::vector<std::uint32_t> words(16);
  EXPECT_TRUE(constraint.allowed({}, words));
  return words;
}

TEST(ConstraintMaker, MakesWhatTheRecipeIsOf) {
  const OpenModel model = open_model(kModel);
  const GrammarVocabulary vocabulary(model.tokenizer, model.stop_ids);
  ConstraintMaker maker(kModel);
  for (const Start start : {Start::kContent, Start::kEither, Start::kInside}) {
    for (const auto& [kind, text] :
         {std::pair(GrammarKind::kRegex, "ab+c"), std::pair(GrammarKind::kLark, "start: \"ab\""),
          std::pair(GrammarKind::kJsonSchema, R"({"type": "object"})")}) {
      GrammarConstraint original(vocabulary.compile(kind, text), model, start);
      if (start == Start::kContent) {
        ASSERT_TRUE(original.commit(*model.tokenizer.find_token(*text == '{' ? "{" : "a")));
      }
      const std::unique_ptr<TokenConstraint> made = maker.make(original.recipe().value());
      EXPECT_EQ(made->recipe(), original.recipe());
      GrammarConstraint fresh(vocabulary.compile(kind, text), model, start);  // a recipe is of the beginning
      EXPECT_EQ(allowed(*made), allowed(fresh));
    }
  }
}

TEST(ConstraintMaker, OnesOfTheSameGrammarKnowNothingOfEachOther) {
  ConstraintMaker maker(kModel);
  const ConstraintRecipe recipe{.kind = 1, .start = 0, .source = "ab"};
  const std::unique_ptr<TokenConstraint> one = maker.make(recipe);
  const std::vector<std::uint32_t> first = allowed(*one);
  ASSERT_TRUE(one->commit(*open_model(kModel).tokenizer.find_token("a")));
  EXPECT_NE(allowed(*one), first);
  EXPECT_EQ(allowed(*maker.make(recipe)), first);
  for (int i = 0; i < 40; ++i) maker.make({.kind = 1, .start = 0, .source = format("a{{{}}}", i + 1)});
  EXPECT_EQ(allowed(*maker.make(recipe)), first);  // also when it had to go
}

TEST(ConstraintMaker, RefusesWhatMeansNothing) {
  ConstraintMaker maker(kModel);
  EXPECT_EQ(error_of([&] { maker.make({.kind = 3, .start = 0, .source = "a"}); }).message(),
            "kind of a constraint is 3, limit is 2");
  EXPECT_EQ(error_of([&] { maker.make({.kind = 1, .start = 3, .source = "a"}); }).message(),
            "start of a constraint is 3, limit is 2");
  EXPECT_EQ(error_of([&] { maker.make({.kind = 1, .start = 0, .source = "("}); }).code(), ErrorCode::kInvalidData);
}

}  // namespace
}  // namespace tandem
