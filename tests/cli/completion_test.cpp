// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/completion.h"

#include <gtest/gtest.h>

#include "session/open_model.h"

namespace tandem {
namespace {

TEST(PromptCompletion, BecomesOneLineOfJson) {
  const OpenModel model = open_model("tests/goldens/llama");
  PromptCompletion completion(7, true);
  TextNews news;
  news.text = "a\n";
  news.tokens = {{.id = 40, .logprob = -1, .top_logprobs = {{40, -1.f}, {41, -2.f}}}};
  completion.add(news);
  EXPECT_FALSE(completion.done());
  news.text = "b";
  news.finish = FinishReason::kLength;
  news.prompt_tokens = 3;
  news.answer_tokens = 2;
  completion.add(news);
  EXPECT_TRUE(completion.done());
  const std::string line = completion.line(model.tokenizer, {.token_ids = true});
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const Json json = parse_json(line, "line");
  EXPECT_EQ(json["id"], 7);
  EXPECT_EQ(json["text"], "a\nb");
  EXPECT_EQ(json["finish_reason"], "length");
  EXPECT_EQ(json["usage"], (Json{{"prompt_tokens", 3}, {"cached_tokens", 0}, {"completion_tokens", 2}}));
  EXPECT_EQ(json["token_ids"], Json::array({40, 40}));
  EXPECT_EQ(json["logprobs"][1]["top"][1]["id"], 41);
  EXPECT_EQ(json["logprobs"][0]["token"], model.tokenizer.token_bytes(40));
  EXPECT_EQ(completion.line(model.tokenizer, {.text_only = true}), "a\nb\n");
}

TEST(PromptCompletion, AnErrorTakesThePlaceOfTheText) {
  const OpenModel model = open_model("tests/goldens/llama");
  PromptCompletion completion(nullptr);
  completion.fail(Error(ErrorCode::kInvalidArgument, "no"));
  EXPECT_TRUE(completion.failed());
  EXPECT_EQ(completion.line(model.tokenizer, {}),
            "{\"error\":{\"code\":\"" + std::string(name(ErrorCode::kInvalidArgument)) + "\",\"message\":\"no\"}}\n");
}

}  // namespace
}  // namespace tandem
