// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "tests/text/text_goldens.h"

namespace tandem {
namespace {

std::string streamed(const Tokenizer& tokenizer, const std::vector<std::int32_t>& ids, bool skip_special) {
  Detokenizer detokenizer(tokenizer, skip_special);
  std::string text;
  for (const std::int32_t id : ids) {
    const std::string part = detokenizer.push(id);
    // Every part is whole characters: JSON's strict writer refuses anything else.
    EXPECT_NO_THROW(static_cast<void>(Json(part).dump())) << "id " << id;
    text += part;
  }
  return text + detokenizer.finish();
}

void compare_random(const Tokenizer& tokenizer, std::uint64_t seed) {
  Rng rng(seed);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::int32_t> ids(rng.below(40));
    for (std::int32_t& id : ids) id = static_cast<std::int32_t>(rng.below(tokenizer.vocab_size() + 4)) - 2;
    for (const bool skip : {false, true})
      ASSERT_EQ(streamed(tokenizer, ids, skip), tokenizer.decode(ids, skip)) << "seed " << seed << " round " << round;
  }
}

TEST(Detokenizer, StreamsWhatDecodeGives) {
  std::uint64_t seed = 1;
  for (const char* family : kFamilies) {
    const Tokenizer tokenizer = golden_tokenizer(std::string("tokenizer_") + family);
    const OrderedJson cases = golden_json("text/tokenizer.json")[family];
    for (const OrderedJson& entry : cases) {
      const std::vector<std::int32_t> ids = entry["ids"];
      EXPECT_EQ(streamed(tokenizer, ids, false), entry["decoded"].get<std::string>());
      EXPECT_EQ(streamed(tokenizer, ids, true), entry["decoded_skipping_special"].get<std::string>());
    }
    compare_random(tokenizer, seed++);
  }
}

TEST(Detokenizer, ByteFallbackAndLeadingSpace) {
  const Tokenizer tokenizer = Tokenizer::from_json(byte_fallback_tokenizer_json());
  const auto ids = tokenizer.encode("  ab \U0001f600\u00e9c");
  EXPECT_EQ(tokenizer.decode(ids), "  ab \U0001f600\u00e9c");
  EXPECT_EQ(streamed(tokenizer, ids, false), "  ab \U0001f600\u00e9c");
  compare_random(tokenizer, 7);
}

TEST(Detokenizer, Metaspace) {
  Json document = Json::parse(byte_fallback_tokenizer_json());
  for (const char* scheme : {"always", "first", "never"}) {
    document["decoder"] = {
        {"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", scheme}, {"split", false}};
    compare_random(Tokenizer::from_json(document.dump()), 11);
  }
}

TEST(Detokenizer, HoldsBackACutCharacter) {
  const Tokenizer tokenizer = golden_tokenizer("tokenizer_qwen");
  const auto ids = tokenizer.encode("\U0001f600");
  ASSERT_GT(ids.size(), 1u);
  Detokenizer detokenizer(tokenizer);
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) EXPECT_EQ(detokenizer.push(ids[i]), "");
  EXPECT_EQ(detokenizer.push(ids.back()), "\U0001f600");
  EXPECT_EQ(detokenizer.push(ids.front()), "");
  EXPECT_EQ(detokenizer.finish(), "\ufffd");
}

TEST(Detokenizer, shows_the_special_tokens_that_it_is_told_to) {
  const Tokenizer tokenizer = golden_tokenizer("tokenizer_step3");
  const std::int32_t turn = *tokenizer.find_token("<|BOT|>"), end = *tokenizer.find_token("<|EOT|>");
  Detokenizer text(tokenizer, true, {turn});
  EXPECT_EQ(text.push(turn) + text.push(end) + text.finish(), "<|BOT|>");
}

}  // namespace
}  // namespace tandem
