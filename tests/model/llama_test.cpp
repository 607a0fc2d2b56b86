// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Llama in one piece and in halves. That the numbers are right is for the golden tests (tests/verify); here they must
// be the same however the model is cut, and change when they should.
#include "model/llama.h"

#include <gmock/gmock.h>

#include "ops/reference/reference_backend.h"
#include "tests/base/error_of.h"
#include "tests/model/split_run.h"
#include "tests/model/synthetic_checkpoint.h"

namespace tandem {
namespace {

using testing::ElementsAreArray;
using testing::HasSubstr;

constexpr std::int32_t kTokens[] = {5, 0, 39, 17, 5, 22};

Json tied_config() {
  Json config = llama_config();
  config["tie_word_embeddings"] = true;
  return config;
}

TEST(Llama, halves_and_shares_give_the_bits_of_the_whole) {
  for (const bool tied : {false, true}) {
    const Json config = tied ? tied_config() : llama_config();
    const SyntheticCheckpoint checkpoint(config, llama_tensors(config));
    const std::vector<float> whole = whole_logits(*checkpoint, kTokens);
    for (const std::int32_t workers : {1, 2, 3, 4, 8, 9})
      EXPECT_THAT(split_logits(*checkpoint, workers, kTokens), ElementsAreArray(whole)) << workers << " FFN workers";
  }
}

TEST(Llama, a_tied_head_is_the_embedding) {
  const Json config = tied_config();
  const SyntheticCheckpoint tied(config, llama_tensors(config));
  SyntheticTensors tensors = llama_tensors(llama_config());
  const std::vector<float> own_head = whole_logits(*SyntheticCheckpoint(llama_config(), tensors), kTokens);
  tensor_named(tensors, "lm_head.weight").values_of = "model.embed_tokens.weight";
  const std::vector<float> same_head = whole_logits(*SyntheticCheckpoint(llama_config(), tensors), kTokens);
  const std::vector<float> logits = whole_logits(*tied, kTokens);
  EXPECT_THAT(logits, ElementsAreArray(same_head));
  EXPECT_NE(logits, own_head);
}

TEST(Llama, a_tied_head_that_the_file_repeats_is_not_read) {
  const Json config = tied_config();
  SyntheticTensors tensors = llama_tensors(config);
  const std::vector<float> expected = whole_logits(*SyntheticCheckpoint(config, tensors), kTokens);
  tensors.push_back({"lm_head.weight", {40, 48}});
  EXPECT_THAT(whole_logits(*SyntheticCheckpoint(config, tensors), kTokens), ElementsAreArray(expected));
}

TEST(Llama, an_untied_head_must_be_there) {
  const Error error =
      error_of([] { whole_logits(*SyntheticCheckpoint(llama_config(), llama_tensors(tied_config())), kTokens); });
  EXPECT_THAT(error.message(), HasSubstr("missing (1): lm_head.weight"));
}

TEST(Llama, a_row_sees_what_came_before_it_and_nothing_after) {
  const SyntheticCheckpoint checkpoint(llama_config(), llama_tensors(llama_config()));
  const std::vector<float> all = whole_logits(*checkpoint, kTokens);
  const std::vector<float> first_four = whole_logits(*checkpoint, std::span(kTokens).first(4));
  EXPECT_THAT(first_four, ElementsAreArray(std::span(all).first(4 * 40)));
  // Tokens 0 and 4 are the same and stand in different places.
  EXPECT_NE(std::vector(all.begin(), all.begin() + 40), std::vector(all.begin() + 4 * 40, all.begin() + 5 * 40));
}

TEST(Llama, stored_positions_of_an_old_file_are_ignored) {
  SyntheticTensors tensors = llama_tensors(llama_config());
  const std::vector<float> expected = whole_logits(*SyntheticCheckpoint(llama_config(), tensors), kTokens);
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", {8}});
  EXPECT_THAT(whole_logits(*SyntheticCheckpoint(llama_config(), tensors), kTokens), ElementsAreArray(expected));
}

TEST(Llama, every_stored_tensor_matters) {
  const SyntheticTensors tensors = llama_tensors(llama_config());
  const std::vector<float> expected = whole_logits(*SyntheticCheckpoint(llama_config(), tensors), kTokens);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    SyntheticTensors changed = tensors;
    changed[i].values_of = "something else";
    EXPECT_NE(whole_logits(*SyntheticCheckpoint(llama_config(), changed), kTokens), expected) << tensors[i].name;
  }
}

TEST(Llama, a_half_packs_its_weights_and_no_others) {
  const Json config = llama_config();
  const SyntheticCheckpoint checkpoint(config, llama_tensors(config));
  const auto backend = make_reference_backend();
  const auto attention = load_model(*checkpoint, {.attention = true, .ffn = false}, *backend);
  const auto ffn = load_model(*checkpoint, {.attention = false, .ffn = true, .experts = ffn_share(0, 1, 0)}, *backend);
  const auto half = load_model(*checkpoint, {.attention = false, .ffn = true, .experts = ffn_share(1, 2, 0)}, *backend);
  const auto none = load_model(*checkpoint, {.attention = false, .ffn = true, .experts = ffn_share(8, 9, 0)}, *backend);
  // Packed by the reference backend: 4 bytes a value. Norms are no matrices.
  EXPECT_EQ(attention->weight_bytes(), 4 * (2 * 40 * 48 + 2 * (128 + 64) * 48));
  EXPECT_EQ(ffn->weight_bytes(), 4 * 2 * 3 * 80 * 48);
  EXPECT_EQ(half->weight_bytes(), 4 * 2 * 3 * (80 - 32) * 48) << "of three blocks of 32 the second half has two";
  EXPECT_EQ(none->weight_bytes(), 0);
}

}  // namespace
}  // namespace tandem
