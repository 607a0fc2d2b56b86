// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/gguf_vocabulary.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/text/text_goldens.h"

namespace tandem {
namespace {

// The vocabulary of a recorded tokenizer in the form that a GGUF file has.
GgufVocabulary vocabulary_of(const std::string& folder, const std::string& pre) {
  const Json document = Json::parse(read_golden("text/" + folder + "/tokenizer.json"));
  GgufVocabulary vocabulary = {.model = "gpt2",
                               .pre = pre,
                               .tokens = std::vector<std::string>(512),
                               .token_types = std::vector<std::int32_t>(512, 1)};
  for (const auto& [token, id] : document["model"]["vocab"].items()) vocabulary.tokens[id] = token;
  for (const Json& token : document["added_tokens"]) {
    vocabulary.tokens[token["id"]] = token["content"];
    vocabulary.token_types[token["id"]] = token["special"] ? 3 : 4;
  }
  for (const Json& merge : document["model"]["merges"])
    vocabulary.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  return vocabulary;
}

void expect_golden(const GgufVocabulary& vocabulary, const char* family) {
  const Tokenizer tokenizer = make_tokenizer(vocabulary);
  const OrderedJson cases = golden_json("text/tokenizer.json")[family];
  for (const OrderedJson& entry : cases) {
    const std::vector<std::int32_t> ids = entry["ids"], framed = entry["ids_with_special_tokens"];
    EXPECT_EQ(tokenizer.encode(entry["text"].get<std::string>(), {.parse_special = true}), ids) << entry["text"];
    EXPECT_EQ(tokenizer.encode(entry["text"].get<std::string>(), {.add_special_tokens = true, .parse_special = true}),
              framed);
    EXPECT_EQ(tokenizer.decode(ids, true), entry["decoded_skipping_special"].get<std::string>());
  }
}

TEST(GgufVocabulary, MakesTheTokenizerOfTheFamily) {
  GgufVocabulary llama = vocabulary_of("tokenizer_llama3", "llama-bpe");
  llama.bos_id = 504;
  llama.eos_id = 510;
  llama.add_bos = true;
  expect_golden(llama, "llama3");
  EXPECT_EQ(make_tokenizer(llama).bos_id(), 504);
  EXPECT_EQ(make_tokenizer(llama).eos_token(), "<|eot_id|>");
  expect_golden(vocabulary_of("tokenizer_qwen", "qwen2"), "qwen");
}

TEST(GgufVocabulary, CutsWordsAsThePreTokenizerSays) {
  const std::string text = "it's 2024, a\n\n  b!!";
  for (const char* pre : {"smollm", "gpt-2", "default", "llama-bpe", "qwen2"}) {
    const Tokenizer tokenizer = make_tokenizer(vocabulary_of("tokenizer_qwen", pre));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << pre;
  }
  // Single digits only with smollm, though the vocabulary knows a longer one when asked to.
  GgufVocabulary vocabulary = vocabulary_of("tokenizer_qwen", "gpt-2");
  vocabulary.tokens.push_back("12");
  vocabulary.token_types.push_back(1);
  vocabulary.merges.insert(vocabulary.merges.begin(), "1 2");
  EXPECT_EQ(make_tokenizer(vocabulary).encode("12").size(), 1u);
  vocabulary.pre = "smollm";
  EXPECT_EQ(make_tokenizer(vocabulary).encode("12").size(), 2u);
}

TEST(GgufVocabulary, RefusesWhatDoesNotFit) {
  const GgufVocabulary good = vocabulary_of("tokenizer_qwen", "qwen2");
  const auto refused = [&](auto change) {
    GgufVocabulary bad = good;
    change(bad);
    EXPECT_THROW(make_tokenizer(bad), Error);
  };
  EXPECT_NO_THROW(make_tokenizer(good));
  refused([](GgufVocabulary& v) { v.model = "llama"; });
  refused([](GgufVocabulary& v) { v.pre = "unheard-of"; });
  refused([](GgufVocabulary& v) { v.tokens.clear(); });
  refused([](GgufVocabulary& v) { v.token_types.pop_back(); });
  refused([](GgufVocabulary& v) { v.bos_id = 512; });
  refused([](GgufVocabulary& v) { v.eos_id = -1; });
  refused([](GgufVocabulary& v) { v.add_bos = true; });
  refused([](GgufVocabulary& v) { v.tokens[1] = v.tokens[0]; });
  refused([](GgufVocabulary& v) { v.merges.push_back("alone"); });
  refused([](GgufVocabulary& v) { v.merges.push_back(""); });
  refused([](GgufVocabulary& v) { v.merges.push_back("no-such token"); });
}

}  // namespace
}  // namespace tandem
