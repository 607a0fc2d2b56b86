// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/tokenizer_json.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/text/text_goldens.h"

namespace tandem {
namespace {

TEST(TokenizerJson, HostileDocumentsEndInAnError) {
  const Json good = Json::parse(read_golden("text/tokenizer_qwen/tokenizer.json"));
  const auto refused = [&](const char* what, auto change) {
    Json bad = good;
    change(bad);
    EXPECT_THROW(Tokenizer::from_json(bad.dump()), Error) << what;
  };
  EXPECT_NO_THROW(Tokenizer::from_json(good.dump()));
  refused("no model", [](Json& d) { d.erase("model"); });
  refused("vocab type", [](Json& d) { d["model"]["vocab"] = Json::array({1}); });
  refused("huge id", [](Json& d) { d["model"]["vocab"]["zz"] = 4294967295u; });
  refused("negative id", [](Json& d) { d["model"]["vocab"]["zz"] = -1; });
  refused("fraction", [](Json& d) { d["model"]["vocab"]["zz"] = 1.5; });
  refused("duplicate id", [](Json& d) { d["model"]["vocab"]["zz"] = 5; });
  refused("dropout", [](Json& d) { d["model"]["dropout"] = 0.5; });
  refused("merge of unknown tokens", [](Json& d) { d["model"]["merges"].push_back(Json::array({"zzz", "yyy"})); });
  refused("added id", [](Json& d) { d["added_tokens"][0]["id"] = 600; });
  refused("added twice", [](Json& d) { d["added_tokens"].push_back(d["added_tokens"][0]); });
  refused("added without content", [](Json& d) { d["added_tokens"][0].erase("content"); });
  refused("unknown part",
          [](Json& d) { d["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", "AAAA"}}; });
  refused("no decoder", [](Json& d) { d["decoder"] = nullptr; });
  refused("bad expression", [](Json& d) { d["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(["; });
  refused("growth", [](Json& d) {
    const Json twice = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
    d["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}};
    for (int i = 0; i < 10; ++i) d["normalizer"]["normalizers"].push_back(twice);
  });
  refused("many parts", [](Json& d) {
    d["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}};
    for (int i = 0; i < 100; ++i) d["normalizer"]["normalizers"].push_back({{"type", "NFC"}});
  });
  for (const char* text : {"", "null", "[]", "{}", "{\"model\": 3}"})
    EXPECT_THROW(Tokenizer::from_json(text), Error) << text;
  EXPECT_THROW(Tokenizer::from_json(std::string(100000, '[')), Error);
}

TEST(TokenizerJson, ConfigurationAddsTokens) {
  const std::string document = read_golden("text/tokenizer_qwen/tokenizer.json");
  const Tokenizer tokenizer = Tokenizer::from_json(
      document, R"({"added_tokens_decoder": {"512": {"content": "<|extra|>", "special": true, "normalized": false}},
                    "eos_token": {"content": "<|extra|>"},
                    "chat_template": [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]})");
  EXPECT_EQ(tokenizer.encode("<|extra|>", {.parse_special = true}), std::vector<std::int32_t>{512});
  EXPECT_EQ(tokenizer.eos_id(), 512);
  EXPECT_EQ(tokenizer.chat_template(), "d");
  EXPECT_THROW(Tokenizer::from_json(document, R"({"added_tokens_decoder": {"9999": {"content": "<|far|>"}}})"), Error);
  EXPECT_THROW(Tokenizer::from_json(document, R"({"added_tokens_decoder": {"-1": {"content": "<|far|>"}}})"), Error);
}

TEST(TokenizerJson, PaddingAndTruncationAreTakenOut) {
  Json document = Json::parse(read_golden("text/tokenizer_qwen/tokenizer.json"));
  document["truncation"] = {{"max_length", 1}, {"strategy", "LongestFirst"}, {"stride", 0}, {"direction", "Right"}};
  const Tokenizer tokenizer = Tokenizer::from_json(document.dump());
  EXPECT_GT(tokenizer.encode("hello world").size(), 1u);
}

}  // namespace
}  // namespace tandem
