// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Step-3 in one piece and in halves, with whole experts on different workers. Right numbers: tests/verify.
#include "model/step3_text.h"

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

Json config_with(const char* patch) {
  Json config = step3_config();
  config.merge_patch(Json::parse(patch));
  return config;
}

TEST(Step3Text, halves_and_shares_give_the_bits_of_the_whole) {
  for (const char* patch : {"{}", R"({"tie_word_embeddings": true})", R"({"norm_expert_weight": true})"}) {
    SCOPED_TRACE(patch);
    const Json config = config_with(patch);
    const SyntheticCheckpoint checkpoint(config, step3_tensors(config));
    const std::vector<float> whole = whole_logits(*checkpoint, kTokens);
    for (const std::int32_t workers : {1, 2, 3, 4, 6, 9})
      EXPECT_THAT(split_logits(*checkpoint, workers, kTokens), ElementsAreArray(whole)) << workers << " FFN workers";
  }
}

// Widths of two and a half blocks: shares are cut at whole ones.
TEST(Step3Text, halves_and_shares_of_block_fp8_give_the_bits_of_the_whole) {
  Json config = config_with(R"({"hidden_size": 192, "intermediate_size": 320, "moe_intermediate_size": 160,
    "share_expert_dim": 300, "share_q_dim": 130})");
  SyntheticTensors tensors = step3_tensors(config);
  make_block_fp8(config, tensors);
  const SyntheticCheckpoint checkpoint(config, tensors);
  const std::vector<float> whole = whole_logits(*checkpoint, kTokens);
  for (const std::int32_t workers : {1, 2, 3, 9})
    EXPECT_THAT(split_logits(*checkpoint, workers, kTokens), ElementsAreArray(whole)) << workers << " FFN workers";
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!tensors[i].name.ends_with("_scale_inv")) continue;
    SyntheticTensors changed = tensors;
    changed[i].scale = 1.5f;
    EXPECT_NE(whole_logits(*SyntheticCheckpoint(config, changed), kTokens), whole) << tensors[i].name;
  }
}

TEST(Step3Text, scales_that_are_missing_or_misshapen_are_named) {
  Json config = step3_config();
  SyntheticTensors tensors = step3_tensors(config);
  make_block_fp8(config, tensors);
  remove_tensor(tensors, "model.layers.0.self_attn.wq.weight_scale_inv");
  tensor_named(tensors, "model.layers.1.moe.up_proj.weight_scale_inv").shape = {1, 1};
  const Error error = error_of([&] { whole_logits(*SyntheticCheckpoint(config, tensors), kTokens); });
  EXPECT_THAT(error.message(), HasSubstr("missing (1): model.layers.0.self_attn.wq.weight_scale_inv"));
  EXPECT_THAT(error.message(), HasSubstr("model.layers.1.moe.up_proj.weight_scale_inv is [1, 1], expected [6, 1, 1]"));
}

TEST(Step3Text, a_tied_head_is_the_embedding) {
  const Json config = config_with(R"({"tie_word_embeddings": true})");
  SyntheticTensors tensors = step3_tensors(step3_config());
  const std::vector<float> own_head = whole_logits(*SyntheticCheckpoint(step3_config(), tensors), kTokens);
  tensor_named(tensors, "lm_head.weight").values_of = "model.embed_tokens.weight";
  const std::vector<float> same_head = whole_logits(*SyntheticCheckpoint(step3_config(), tensors), kTokens);
  const std::vector<float> tied = whole_logits(*SyntheticCheckpoint(config, step3_tensors(config)), kTokens);
  EXPECT_THAT(tied, ElementsAreArray(same_head));
  EXPECT_NE(tied, own_head);
}

TEST(Step3Text, a_head_is_needed_unless_the_file_says_that_it_is_tied) {
  SyntheticTensors tensors = step3_tensors(step3_config());
  remove_tensor(tensors, "lm_head.weight");
  const Error error = error_of([&] { whole_logits(*SyntheticCheckpoint(step3_config(), tensors), kTokens); });
  EXPECT_THAT(error.message(), HasSubstr("missing (1): lm_head.weight"));
}

TEST(Step3Text, a_row_sees_what_came_before_it_and_nothing_after) {
  const SyntheticCheckpoint checkpoint(step3_config(), step3_tensors(step3_config()));
  const std::vector<float> all = whole_logits(*checkpoint, kTokens);
  EXPECT_THAT(whole_logits(*checkpoint, std::span(kTokens).first(4)), ElementsAreArray(std::span(all).first(4 * 40)));
  EXPECT_NE(std::vector(all.begin(), all.begin() + 40), std::vector(all.begin() + 4 * 40, all.begin() + 5 * 40));
}

TEST(Step3Text, every_stored_tensor_matters) {
  const SyntheticTensors tensors = step3_tensors(step3_config());
  const std::vector<float> expected = whole_logits(*SyntheticCheckpoint(step3_config(), tensors), kTokens);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    SyntheticTensors changed = tensors;
    changed[i].values_of = "something else";
    EXPECT_NE(whole_logits(*SyntheticCheckpoint(step3_config(), changed), kTokens), expected) << tensors[i].name;
  }
}

TEST(Step3Text, the_weights_of_chosen_experts_sum_to_one_only_when_the_file_asks_for_it) {
  const auto backend = checked_reference();
  for (const bool renormalise : {false, true}) {
    Json config = step3_config();
    config["norm_expert_weight"] = renormalise;
    const SyntheticCheckpoint checkpoint(config, step3_tensors(config));
    const auto model = load_model(*checkpoint, {.attention = true, .ffn = false}, *backend);
    Arena arena(*backend, 1 << 16), scratch(*backend, model->attention_scratch_bytes(1, 0));
    HandOver hand_over{arena.f32(1, 48), Tensor(arena.i32(2).data, DType::kI32, {1, 2}), arena.f32(1, 2)};
    for (int i = 0; i < 48; ++i) hand_over.hidden.f32()[i] = i % 2 ? 1.0f : -0.5f;
    model->route({*backend, scratch}, 1, hand_over);
    const float* weights = hand_over.expert_weights.f32();
    EXPECT_GE(weights[0], weights[1]);
    EXPECT_GT(weights[1], 0);
    if (renormalise)
      EXPECT_NEAR(weights[0] + weights[1], 1, 1e-6);
    else
      EXPECT_LT(weights[0] + weights[1], 0.99f) << "the other four experts have their part of the softmax";
    EXPECT_NE(hand_over.expert_ids.as<std::int32_t>()[0], hand_over.expert_ids.as<std::int32_t>()[1]);
  }
}

TEST(Step3Text, a_share_packs_its_experts_and_no_others) {
  const SyntheticCheckpoint checkpoint(step3_config(), step3_tensors(step3_config()));
  const auto backend = make_reference_backend();
  const auto bytes = [&](const FfnShare& share) {
    return load_model(*checkpoint, {.attention = false, .ffn = true, .experts = share}, *backend)->weight_bytes();
  };
  constexpr std::int64_t kExpert = 4 * 3 * 33 * 48, kShared = 4 * 3 * 64 * 48, kDense = 4 * 3 * 80 * 48;
  EXPECT_EQ(bytes(ffn_share(0, 1, 6)), 6 * kExpert + kShared + 2 * kDense);
  EXPECT_EQ(bytes({.expert_begin = 4, .expert_end = 6, .slice_first = 0, .slice_count = 0}), 2 * kExpert);
  EXPECT_EQ(bytes({.expert_begin = 3, .expert_end = 3}), kShared + 2 * kDense);
  EXPECT_EQ(bytes(ffn_share(0, 2, 6)) + bytes(ffn_share(1, 2, 6)), bytes(ffn_share(0, 1, 6)));
  // 33 columns are a block of 32 and one of one.
  const FfnSplit by_width{2, 2};
  EXPECT_EQ(bytes({.expert_begin = 0, .expert_end = 3, .slice_count = 0, .width_first = 0, .width_count = 4}),
            3 * kExpert / 33 * 32);
  EXPECT_EQ(bytes({.expert_begin = 0, .expert_end = 3, .slice_count = 0, .width_first = 4, .width_count = 4}),
            3 * kExpert / 33);
  std::int64_t sum = 0;
  for (std::int32_t i = 0; i < 4; ++i) sum += bytes(ffn_share(i, by_width, 6));
  EXPECT_EQ(sum, bytes(ffn_share(0, 1, 6)));
}

}  // namespace
}  // namespace tandem
