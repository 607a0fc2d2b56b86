// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/text/text_goldens.h"

namespace tandem {
namespace {

class TokenizerGolden : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerGolden, EncodesAndDecodesAsRecorded) {
  const Tokenizer tokenizer = golden_tokenizer(std::string("tokenizer_") + GetParam());
  const OrderedJson cases = golden_json("text/tokenizer.json")[GetParam()];
  ASSERT_GT(cases.size(), 30u);
  for (const OrderedJson& entry : cases) {
    const std::string text = entry["text"];
    const std::vector<std::int32_t> ids = entry["ids"];
    const std::vector<std::int32_t> framed = entry["ids_with_special_tokens"];
    EXPECT_EQ(tokenizer.encode(text, {.parse_special = true}), ids) << text;
    EXPECT_EQ(tokenizer.encode(text, {.add_special_tokens = true, .parse_special = true}), framed) << text;
    EXPECT_EQ(tokenizer.decode(ids), entry["decoded"].get<std::string>());
    EXPECT_EQ(tokenizer.decode(ids, /*skip_special=*/true), entry["decoded_skipping_special"].get<std::string>());
  }
}

TEST_P(TokenizerGolden, PlainTextIsTheSameWhereNothingIsSpelled) {
  const Tokenizer tokenizer = golden_tokenizer(std::string("tokenizer_") + GetParam());
  int compared = 0;
  const OrderedJson cases = golden_json("text/tokenizer.json")[GetParam()];
  for (const OrderedJson& entry : cases) {
    const std::vector<std::int32_t> ids = entry["ids"];
    if (std::any_of(ids.begin(), ids.end(), [&](std::int32_t id) { return tokenizer.is_control(id); })) continue;
    EXPECT_EQ(tokenizer.encode(entry["text"].get<std::string>()), ids) << entry["text"];
    ++compared;
  }
  EXPECT_GT(compared, 30);
}

TEST_P(TokenizerGolden, TypedControlTokensStayText) {
  const Tokenizer tokenizer = golden_tokenizer(std::string("tokenizer_") + GetParam());
  int controls = 0;
  for (std::int32_t id = 0; id < static_cast<std::int32_t>(tokenizer.vocab_size()); ++id) {
    if (!tokenizer.is_control(id)) continue;
    ++controls;
    const std::string typed = "x" + tokenizer.token(id) + "y";
    const auto plain = tokenizer.encode(typed);
    for (const std::int32_t plain_id : plain) EXPECT_FALSE(tokenizer.is_control(plain_id)) << typed;
    EXPECT_EQ(tokenizer.decode(plain), typed);
    const auto parsed = tokenizer.encode(typed, {.parse_special = true});
    EXPECT_NE(std::find(parsed.begin(), parsed.end(), id), parsed.end()) << typed;
  }
  EXPECT_GE(controls, 8);
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerGolden, testing::ValuesIn(kFamilies));

TEST(Tokenizer, KnowsItsTokens) {
  const Tokenizer tokenizer = golden_tokenizer("tokenizer_qwen");
  EXPECT_EQ(tokenizer.vocab_size(), 512u);
  EXPECT_EQ(tokenizer.eos_id(), 505);
  EXPECT_EQ(tokenizer.eos_token(), "<|im_end|>");
  EXPECT_FALSE(tokenizer.bos_id());
  EXPECT_EQ(tokenizer.find_token("<|im_start|>"), 504);
  EXPECT_FALSE(tokenizer.find_token("no such token"));
  EXPECT_EQ(tokenizer.token_bytes(220), " ");
  EXPECT_EQ(tokenizer.token_bytes(-1), "");
  EXPECT_EQ(tokenizer.token_bytes(512), "");
  EXPECT_FALSE(tokenizer.chat_template().empty());
  EXPECT_EQ(tokenizer.decode(std::vector<std::int32_t>{-5, 1 << 30, 220}), " ");
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
  const Tokenizer tokenizer = golden_tokenizer("tokenizer_qwen");
  EXPECT_THROW(tokenizer.encode("\xff\xfe"), Error);
}

}  // namespace
}  // namespace tandem
