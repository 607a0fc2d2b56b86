// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "synthetic/letter_tokenizer.h"

#include <gmock/gmock.h>

#include "synthetic/published_config.h"
#include "synthetic/resize.h"
#include "tests/base/error_of.h"
#include "text/tokenizer.h"

namespace tandem {
namespace {

using testing::HasSubstr;

Tokenizer tokenizer_of(const OrderedJson& config) {
  const TokenizerFiles files = make_tokenizer_files(config);
  return Tokenizer::from_json(files.tokenizer, files.tokenizer_config);
}

TEST(LetterTokenizer, HasATokenForEveryIdOfTheVocabulary) {
  for (const char* name : {"step3", "step3_vl", "deepseek_v3", "qwen3_moe", "llama"}) {
    SCOPED_TRACE(name);
    OrderedJson config = find_config(name);
    const auto vocab = text_part(config)["vocab_size"].get<std::size_t>();
    const Tokenizer tokenizer = tokenizer_of(config);
    ASSERT_EQ(tokenizer.vocab_size(), vocab);
    for (std::size_t id = 0; id < vocab; ++id) ASSERT_TRUE(tokenizer.has_token(static_cast<std::int32_t>(id))) << id;
  }
}

TEST(LetterTokenizer, AnyTextComesBack) {
  const Tokenizer tokenizer = tokenizer_of({{"vocab_size", 5000}, {"bos_token_id", 0}, {"eos_token_id", 4999}});
  for (const char* text : {"once upon a time", "  Größe 12\n\t{\"a\": [1.5]}", "好 \xf0\x9f\x98\x80", ""})
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  EXPECT_LT(tokenizer.encode("once upon a time").size(), 12u) << "runs of letters are one token";
}

TEST(LetterTokenizer, SpecialTokensAreWhereTheConfigurationSays) {
  const Tokenizer llama = tokenizer_of(find_config("llama"));
  EXPECT_EQ(llama.bos_id(), 128000);
  EXPECT_EQ(llama.eos_id(), 128001);
  for (const std::int32_t id : {128000, 128001, 128008, 128009}) EXPECT_TRUE(llama.is_special(id)) << id;
  const Tokenizer step3 = tokenizer_of(find_config("step3_vl"));
  EXPECT_EQ(step3.bos_id(), 0);
  EXPECT_EQ(step3.find_token("<im_patch>"), 128001);
  EXPECT_TRUE(step3.find_token("<patch_newline>"));
  EXPECT_THAT(step3.chat_template(), HasSubstr("<im_patch>"));
}

TEST(LetterTokenizer, NeedsRoomForTheBytes) {
  EXPECT_THAT(error_of([] { make_tokenizer_files({{"vocab_size", 257}}); }).message(), HasSubstr("258 … "));
  EXPECT_EQ(tokenizer_of({{"vocab_size", 258}}).vocab_size(), 258u);
  EXPECT_EQ(error_of([] { make_tokenizer_files({{"vocab_size", 1 << 20}}); }).code(), ErrorCode::kInvalidArgument);
}

TEST(LetterTokenizer, RefusesIdsThatAreNoTokens) {
  for (const OrderedJson& id : {OrderedJson(300), OrderedJson(-1), OrderedJson("a"), OrderedJson::array({5, 1.5})})
    EXPECT_THAT(error_of([&] { make_tokenizer_files({{"vocab_size", 300}, {"eos_token_id", id}}); }).message(),
                HasSubstr("eos_token_id is"));
}

}  // namespace
}  // namespace tandem
