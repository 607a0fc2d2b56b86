// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "synthetic/resize.h"

#include <gtest/gtest.h>

#include "checkpoint/checkpoint.h"
#include "model/config.h"
#include "synthetic/published_config.h"

namespace tandem {
namespace {

ModelConfig resized(const std::string& name, const Resizing& resizing) {
  return read_config(*Checkpoint::describe(Json(resize(find_config(name), resizing)), name));
}

TEST(Resize, ByOneChangesNothing) {
  for (const PublishedConfig& config : published_configs()) {
    SCOPED_TRACE(config.name);
    OrderedJson expected = find_config(std::string(config.name));
    if (expected.contains("num_nextn_predict_layers")) expected["num_nextn_predict_layers"] = 0;
    EXPECT_EQ(resize(find_config(std::string(config.name)), {}), expected);
  }
}

TEST(Resize, KeepsHeadsGroupsAndTheShareOfExpertLayers) {
  const ModelConfig step3 = resized("step3", {.scale = 0.25});
  EXPECT_EQ(step3.hidden, 1792);
  EXPECT_EQ(step3.layers, 15);
  EXPECT_EQ(step3.heads, 16);
  EXPECT_EQ(step3.head_dim, 256);
  EXPECT_EQ(step3.query_rank, 512);
  EXPECT_EQ(step3.experts, 48);
  EXPECT_FALSE(step3.routed[0]);
  EXPECT_TRUE(step3.routed[1]);

  const ModelConfig deepseek = resized("deepseek_v3", {.scale = 0.1});
  EXPECT_EQ(deepseek.heads, 13);
  EXPECT_EQ(deepseek.latent, 512);
  EXPECT_EQ(deepseek.head_dim, 192);
  EXPECT_EQ(deepseek.next_token_layers, 0);
  EXPECT_FALSE(deepseek.routed[0]);
  EXPECT_TRUE(deepseek.routed[1]);

  const ModelConfig qwen = resized("qwen3_moe", {.scale = 0.5});
  EXPECT_EQ(qwen.kv_heads, 2);
  EXPECT_EQ(qwen.heads, 16);
  const ModelConfig llama = resized("llama", {.scale = 0.3});
  EXPECT_EQ(llama.head_dim, 128) << "though its file has no key for it";
  EXPECT_EQ(llama.heads, 8);
  const ModelConfig vision = resized("step3_vl", {.scale = 0.2});
  EXPECT_EQ(vision.vision->hidden % vision.vision->heads, 0);
  EXPECT_EQ(vision.vision->layers, 13);
}

TEST(Resize, TakesWishesOverTheScale) {
  const ModelConfig c = resized("step3", {.scale = 0.1, .layers = 3, .hidden = 512, .experts = 2, .vocab = 1000});
  EXPECT_EQ(c.layers, 3);
  EXPECT_EQ(c.hidden, 512);
  EXPECT_EQ(c.experts, 2);
  EXPECT_EQ(c.experts_per_token, 2);
  EXPECT_EQ(c.vocab, 1000);
  EXPECT_EQ(c.eos_ids, std::vector<std::int32_t>{999});
  const ModelConfig set = resized("step3", {.layers = 3, .settings = {{"moe_layers_enum", "0,2"}, {"moe_top_k", 1}}});
  EXPECT_EQ(set.routed, (std::vector<bool>{true, false, true}));
  EXPECT_EQ(set.experts_per_token, 1);
}

TEST(Resize, FewExpertsHaveFewGroups) {
  const ModelConfig c = resized("deepseek_v3", {.scale = 0.05, .experts = 12});
  EXPECT_EQ(c.router.groups, 4);
  EXPECT_EQ(c.router.groups_kept, 4);
  EXPECT_EQ(c.experts_per_token, 8);
  EXPECT_EQ(resized("deepseek_v3", {.scale = 0.05, .experts = 7}).router.groups, 1);
}

TEST(Resize, ListsWithAValueForEachLayerFollow) {
  OrderedJson config = find_config("tests/goldens/step3p5");
  for (const std::int64_t layers : {2, 7}) {
    const OrderedJson out = resize(config, {.layers = layers});
    const ModelConfig c = read_config(*Checkpoint::describe(Json(out), "step3p5"));
    EXPECT_EQ(c.layers, layers);
    EXPECT_EQ(out["layer_types"].size(), static_cast<std::size_t>(layers));
    EXPECT_EQ(out["layer_types"][static_cast<std::size_t>(layers - 1)], config["layer_types"][(layers - 1) % 4]);
  }
}

TEST(Resize, PrecisionIsASettingOfTheFile) {
  EXPECT_TRUE(resized("step3_fp8", {}).block_fp8);
  EXPECT_FALSE(resized("step3_fp8", {.fp8 = false}).block_fp8);
  EXPECT_TRUE(resized("step3_vl", {.fp8 = true}).block_fp8);
  EXPECT_TRUE(resized("qwen3_moe", {.fp8 = true}).block_fp8);
}

}  // namespace
}  // namespace tandem
