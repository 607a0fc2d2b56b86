// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/openai/tokens.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

TEST(Tokens, text_to_ids_and_back) {
  const OpenModel model = open_model("tests/goldens/llama");
  const RequestLimits limits;
  const GrammarVocabulary grammars(model.tokenizer, model.stop_ids);
  const RequestScope scope = {.model = model,
                              .limits = limits,
                              .grammars = grammars,
                              .model_name = "llama",
                              .vocab = 512,
                              .context_tokens_max = 512,
                              .kv_tokens = 4096};
  const OrderedJson tokens = answer_tokenize(R"({"prompt":"Hello","add_special_tokens":false})", scope);
  EXPECT_EQ(tokens["max_model_len"], 512);
  EXPECT_EQ(answer_detokenize(OrderedJson{{"tokens", tokens["tokens"]}}.dump(), scope)["prompt"], "Hello");
  EXPECT_THROW(answer_tokenize(R"({"prompt":"a","return_token_strs":1})", scope), ApiError);
  EXPECT_THROW(answer_detokenize(R"({"tokens":[512]})", scope), ApiError);
}

}  // namespace
}  // namespace tandem
