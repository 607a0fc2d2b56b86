// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Qwen3 in one piece and in halves, dense and with experts. Right numbers: tests/verify.
#include "model/qwen3.h"

#include <gmock/gmock.h>

#include "ops/reference/reference_backend.h"
#include "tests/base/error_of.h"
#include "tests/model/split_run.h"
#include "tests/model/synthetic_checkpoint.h"

namespace tandem {
namespace {

using testing::ElementsAreArray;
using testing::HasSubstr;

constexpr std::int32_t kTokens[] = {5, 0, 38, 17, 5, 22};
constexpr std::int64_t kVocab = 39;

Json config_with(Json config, const char* patch) {
  config.merge_patch(Json::parse(patch));
  return config;
}

TEST(Qwen3, halves_and_shares_give_the_bits_of_the_whole) {
  for (const Json& config : {qwen3_config(), config_with(qwen3_config(), R"({"tie_word_embeddings": false})"),
                             qwen3_moe_config(), config_with(qwen3_moe_config(), R"({"norm_topk_prob": false})")}) {
    SCOPED_TRACE(to_line(config));
    const SyntheticCheckpoint checkpoint(config, qwen3_tensors(config));
    const std::vector<float> whole = whole_logits(*checkpoint, kTokens);
    for (const std::int32_t workers : {1, 2, 3, 4, 6, 9})
      EXPECT_THAT(split_logits(*checkpoint, workers, kTokens), ElementsAreArray(whole)) << workers << " FFN workers";
  }
}

TEST(Qwen3, a_row_sees_what_came_before_it_and_nothing_after) {
  const SyntheticCheckpoint checkpoint(qwen3_moe_config(), qwen3_tensors(qwen3_moe_config()));
  const std::vector<float> all = whole_logits(*checkpoint, kTokens);
  EXPECT_THAT(whole_logits(*checkpoint, std::span(kTokens).first(4)),
              ElementsAreArray(std::span(all).first(4 * kVocab)));
  EXPECT_NE(std::vector(all.begin(), all.begin() + kVocab),
            std::vector(all.begin() + 4 * kVocab, all.begin() + 5 * kVocab));
}

TEST(Qwen3, every_stored_tensor_matters) {
  for (const Json& config : {qwen3_config(), qwen3_moe_config()}) {
    const SyntheticTensors tensors = qwen3_tensors(config);
    // Enough tokens for every expert to be somebody's choice.
    std::vector<std::int32_t> tokens(kVocab);
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i);
    const std::vector<float> expected = whole_logits(*SyntheticCheckpoint(config, tensors), tokens);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      SyntheticTensors changed = tensors;
      changed[i].values_of = "something else";
      EXPECT_NE(whole_logits(*SyntheticCheckpoint(config, changed), tokens), expected) << tensors[i].name;
    }
  }
}

// The norm of each head takes its size away: queries and keys that are larger by a factor give the same scores, but for
// epsilon.
TEST(Qwen3, heads_are_normalised_by_themselves) {
  Json config = qwen3_config();
  config["rms_norm_eps"] = 0;
  SyntheticTensors tensors = qwen3_tensors(config);
  const std::vector<float> expected = whole_logits(*SyntheticCheckpoint(config, tensors), kTokens);
  for (SyntheticTensor& tensor : tensors)
    if (tensor.name.ends_with("q_proj.weight") || tensor.name.ends_with("k_proj.weight")) tensor.scale = 4;
  EXPECT_THAT(whole_logits(*SyntheticCheckpoint(config, tensors), kTokens), ElementsAreArray(expected))
      << "a power of two changes no bit";
}

// Sine and cosine of twice the size make queries and keys of twice the size, which their norms can do too.
TEST(Qwen3, yarn_scales_queries_and_keys) {
  Json config = qwen3_config();
  SyntheticTensors tensors = qwen3_tensors(config);
  config["rope_scaling"] = {
      {"rope_type", "yarn"}, {"factor", 1}, {"attention_factor", 2}, {"original_max_position_embeddings", 64}};
  const std::vector<float> expected = whole_logits(*SyntheticCheckpoint(config, tensors), kTokens);
  for (SyntheticTensor& tensor : tensors)
    if (tensor.name.ends_with("q_norm.weight") || tensor.name.ends_with("k_norm.weight")) tensor.scale = 2;
  EXPECT_THAT(whole_logits(*SyntheticCheckpoint(qwen3_config(), tensors), kTokens), ElementsAreArray(expected));
}

TEST(Qwen3, a_tied_head_that_the_file_repeats_is_not_read) {
  SyntheticTensors tensors = qwen3_tensors(qwen3_config());
  const std::vector<float> expected = whole_logits(*SyntheticCheckpoint(qwen3_config(), tensors), kTokens);
  tensors.push_back({"lm_head.weight", {kVocab, 40}});
  EXPECT_THAT(whole_logits(*SyntheticCheckpoint(qwen3_config(), tensors), kTokens), ElementsAreArray(expected));
}

TEST(Qwen3, missing_experts_and_norms_are_named) {
  SyntheticTensors tensors = qwen3_tensors(qwen3_moe_config());
  remove_tensor(tensors, "model.layers.1.mlp.experts.4.up_proj.weight");
  remove_tensor(tensors, "model.layers.2.self_attn.k_norm.weight");
  const Error error = error_of([&] { whole_logits(*SyntheticCheckpoint(qwen3_moe_config(), tensors), kTokens); });
  EXPECT_THAT(error.message(), HasSubstr("missing (2): model.layers.1.mlp.experts.4.up_proj.weight, "
                                         "model.layers.2.self_attn.k_norm.weight"));
}

TEST(Qwen3, a_share_packs_its_experts_and_no_others) {
  const SyntheticCheckpoint checkpoint(qwen3_moe_config(), qwen3_tensors(qwen3_moe_config()));
  const auto backend = make_reference_backend();
  const auto bytes = [&](const FfnShare& share) {
    return load_model(*checkpoint, {.attention = false, .ffn = true, .experts = share}, *backend)->weight_bytes();
  };
  constexpr std::int64_t kExpert = 4 * 3 * 33 * 40, kDense = 4 * 3 * 80 * 40;
  EXPECT_EQ(bytes(ffn_share(0, 1, 6)), 6 * kExpert + 2 * kDense);
  EXPECT_EQ(bytes({.expert_begin = 4, .expert_end = 6, .slice_first = 0, .slice_count = 0}), 2 * kExpert);
  EXPECT_EQ(bytes({.expert_begin = 3, .expert_end = 3}), 2 * kDense);
}

}  // namespace
}  // namespace tandem
