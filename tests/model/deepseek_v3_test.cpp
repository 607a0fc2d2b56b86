// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// DeepSeek-V3: its configuration, in one piece and in halves. Right numbers: tests/verify.
#include "model/deepseek_v3.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numeric>

#include "model/config_reader.h"
#include "tests/base/error_of.h"
#include "tests/model/split_run.h"
#include "tests/model/synthetic_checkpoint.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;

constexpr std::int32_t kTokens[] = {5, 0, 38, 17, 5, 22};

Json config_with(const char* patch) {
  Json config = deepseek_v3_config();
  config.merge_patch(Json::parse(patch));
  if (!config.contains("q_lora_rank")) config["q_lora_rank"] = nullptr;
  return config;
}

ModelConfig read(const Json& config) {
  return read_deepseek_v3_config(ConfigReader(config, "config.json"));
}

// The published file of DeepSeek-V3 and R1, as far as it describes the model.
Json published() {
  return Json::parse(R"({"architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1, "first_k_dense_replace": 3, "hidden_act": "silu",
    "hidden_size": 7168, "initializer_range": 0.02, "intermediate_size": 18432, "kv_lora_rank": 512,
    "max_position_embeddings": 163840, "model_type": "deepseek_v3", "moe_intermediate_size": 2048, "moe_layer_freq": 1,
    "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": true, "num_attention_heads": 128,
    "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128, "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
    "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096, "type": "yarn"}, "rope_theta": 10000, "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid", "tie_word_embeddings": false, "topk_group": 4, "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16", "use_cache": true, "v_head_dim": 128, "vocab_size": 129280})");
}

std::int64_t parameters_of(const Json& config) {
  const SyntheticCheckpoint nothing(config, {{"unused", {1}}});
  const ModelConfig c = read(config);
  WeightReader reader(*nothing);
  make_deepseek_v3(c, CheckpointFormat::kSafetensors,
                   {.attention = true, .ffn = true, .experts = {0, c.experts, 0, KSlices::kCountMax}}, reader);
  std::int64_t total = 0;
  for (const RequiredTensor& tensor : reader.requirements().required) total += tensor.shape.elements();
  return total;
}

TEST(DeepseekV3Config, the_published_file_is_read_and_describes_671_billion_parameters) {
  const ModelConfig c = read(published());
  EXPECT_EQ(c.kv_token_elements(), 61 * 576);
  EXPECT_EQ(std::ranges::count(c.routed, false), 3);
  EXPECT_EQ(c.router.groups, 8);
  EXPECT_EQ(c.router.groups_kept, 4);
  EXPECT_FLOAT_EQ(c.router.scale, 2.5f);
  EXPECT_FLOAT_EQ(c.rope.magnitude, 1);
  EXPECT_FLOAT_EQ(c.attention_factor, static_cast<float>(std::pow(0.1 * std::log(40) + 1, 2)));
  EXPECT_EQ(parameters_of(published()), 671'026'419'200);
}

TEST(DeepseekV3Config, kimi_k2_is_the_same_family) {
  Json config = published();
  config.merge_patch(Json::parse(R"({"model_type": "kimi_k2", "first_k_dense_replace": 1, "n_group": 1,
    "topk_group": 1, "n_routed_experts": 384, "num_attention_heads": 64, "num_key_value_heads": 64,
    "num_nextn_predict_layers": 0, "max_position_embeddings": 131072, "rope_theta": 50000.0,
    "routed_scaling_factor": 2.827, "vocab_size": 163840, "eos_token_id": 163585, "rope_scaling": {"beta_fast": 1.0,
    "beta_slow": 1.0, "factor": 32.0, "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096,
    "type": "yarn"}})"));
  const SyntheticCheckpoint checkpoint(config, {{"unused", {1}}});
  EXPECT_EQ(read_config(*checkpoint).architecture, "deepseek_v3");
  EXPECT_EQ(parameters_of(config), 1'026'408'232'448);
  for (const float frequency : rope_inv_freq(read(config).rope)) EXPECT_TRUE(std::isfinite(frequency));
}

TEST(DeepseekV3Config, what_missing_keys_mean) {
  const ModelConfig dense = read(config_with(R"({"n_routed_experts": null})"));
  EXPECT_THAT(dense.routed, ElementsAre(false, false, false));
  EXPECT_EQ(dense.experts, 0);
  EXPECT_EQ(read(config_with(R"({"n_shared_experts": null})")).shared_width, 0);
  EXPECT_EQ(read(config_with(R"({"q_lora_rank": null})")).query_rank, 0);
  const ModelConfig plain = read(config_with(R"({"rope_scaling": null})"));
  EXPECT_FALSE(plain.rope.yarn);
  EXPECT_EQ(plain.attention_factor, 1);
  // Without its two numbers the rule takes its own magnitude, and leaves the scores alone.
  const ModelConfig own = read(config_with(R"({"rope_scaling": {"mscale": null, "mscale_all_dim": null}})"));
  EXPECT_FLOAT_EQ(own.rope.magnitude, static_cast<float>(0.1 * std::log(40) + 1));
  EXPECT_EQ(own.attention_factor, 1);
}

TEST(DeepseekV3Config, values_that_cannot_be_honoured_are_refused_by_name) {
  for (const auto& [patch, message] : {
           std::pair{R"({"hidden_act": "gelu"})", "hidden_act is \"gelu\", supported: silu"},
           {R"({"attention_bias": true})", "attention_bias is true, supported: false"},
           {R"({"topk_method": "group_limited_greedy"})",
            "topk_method is \"group_limited_greedy\", supported: noaux_tc"},
           {R"({"scoring_func": "tanh"})", "scoring_func is \"tanh\", supported: sigmoid, softmax"},
           {R"({"n_group": 3})", "n_group is 3, expected a divisor of 8 experts"},
           {R"({"topk_group": 5})", "topk_group is 5, expected 1 … 4"},
           {R"({"num_experts_per_tok": 5})", "num_experts_per_tok is 5, expected 1 … 4"},
           {R"({"qk_rope_head_dim": 7})", "qk_rope_head_dim is 7, expected an even number"},
           {R"({"rope_scaling": {"type": "linear"}})", "rope_scaling: type is \"linear\", supported: yarn, default"},
           {R"({"rope_scaling": {"factor": 0.5}})", "factor is 0.5, expected 1 …"},
           {R"({"rope_scaling": {"beta_fast": 0.5}})", "beta_fast is 0.5, expected at least beta_slow"},
           {R"({"kv_lora_rank": 0})", "kv_lora_rank is 0"},
       }) {
    const Json config = config_with(patch);
    EXPECT_THAT(error_of([&] { read(config); }).message(), HasSubstr(message)) << patch;
  }
}

// Sizes, ways of routing and of rotating that the recorded checkpoint does not have.
std::vector<Json> variants() {
  return {config_with("{}"),
          config_with(R"({"q_lora_rank": null, "rope_scaling": null, "n_shared_experts": 2})"),
          config_with(R"({"n_shared_experts": 0, "n_group": 8, "topk_group": 3, "norm_topk_prob": false})"),
          config_with(R"({"topk_method": "greedy", "scoring_func": "softmax", "num_experts_per_tok": 8})"),
          config_with(R"({"first_k_dense_replace": 0, "moe_layer_freq": 1, "num_attention_heads": 1,
                          "rope_interleave": false, "rope_scaling": {"mscale": 0.7}})"),
          config_with(R"({"n_routed_experts": 0, "tie_word_embeddings": true, "kv_lora_rank": 3, "v_head_dim": 33})")};
}

TEST(DeepseekV3, halves_and_shares_give_the_bits_of_the_whole) {
  for (const Json& config : variants()) {
    SCOPED_TRACE(to_line(config));
    const SyntheticCheckpoint checkpoint(config, deepseek_v3_tensors(config));
    const std::vector<float> whole = whole_logits(*checkpoint, kTokens);
    for (const std::int32_t workers : {1, 2, 3, 8})
      EXPECT_THAT(split_logits(*checkpoint, workers, kTokens), ElementsAreArray(whole)) << workers << " FFN workers";
  }
}

// Heads of a block and of less than one, whose keys begin inside a block. The FFNs are too narrow to be cut into
// slices, which would be at blocks here and finer there.
TEST(DeepseekV3, block_fp8_gives_the_bits_of_the_values_it_stands_for) {
  for (const char* patch : {R"({"qk_nope_head_dim": 128, "v_head_dim": 128, "kv_lora_rank": 130,
                                "intermediate_size": 30, "moe_intermediate_size": 21})",
                            R"({"hidden_size": 192, "intermediate_size": 30, "moe_intermediate_size": 21})"}) {
    SCOPED_TRACE(patch);
    Json config = config_with(patch);
    SyntheticTensors tensors = deepseek_v3_tensors(config);
    make_block_fp8(config, tensors);
    const SyntheticCheckpoint checkpoint(config, tensors);
    const std::vector<float> whole = whole_logits(*checkpoint, kTokens);
    for (const std::int32_t workers : {1, 3})
      EXPECT_THAT(split_logits(*checkpoint, workers, kTokens), ElementsAreArray(whole)) << workers << " FFN workers";
    widen_block_fp8(config, tensors);
    EXPECT_THAT(whole_logits(*SyntheticCheckpoint(config, tensors), kTokens), ElementsAreArray(whole));
  }
}

TEST(DeepseekV3, every_stored_tensor_matters) {
  std::vector<std::int32_t> tokens(39);  // enough for every expert to be somebody's choice
  std::iota(tokens.begin(), tokens.end(), 0);
  for (const Json& config : {config_with("{}"), config_with(R"({"q_lora_rank": null})")}) {
    const SyntheticTensors tensors = deepseek_v3_tensors(config);
    const std::vector<float> expected = whole_logits(*SyntheticCheckpoint(config, tensors), tokens);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      SyntheticTensors changed = tensors;
      changed[i].values_of = "something else";
      EXPECT_NE(whole_logits(*SyntheticCheckpoint(config, changed), tokens), expected) << tensors[i].name;
    }
  }
}

TEST(DeepseekV3, layers_for_further_tokens_are_not_read_and_no_others_are_passed_over) {
  const Json config = deepseek_v3_config();
  SyntheticTensors tensors = deepseek_v3_tensors(config);
  const std::vector<float> expected = whole_logits(*SyntheticCheckpoint(config, tensors), kTokens);
  tensors.push_back({"model.layers.3.eh_proj.weight", {40, 80}});
  tensors.push_back({"model.layers.3.self_attn.o_proj.weight", {40, 35}});
  EXPECT_THAT(whole_logits(*SyntheticCheckpoint(config, tensors), kTokens), ElementsAreArray(expected));
  tensors.push_back({"model.layers.4.eh_proj.weight", {40, 80}});
  EXPECT_THAT(error_of([&] { whole_logits(*SyntheticCheckpoint(config, tensors), kTokens); }).message(),
              HasSubstr("model.layers.4.eh_proj.weight"));
}

}  // namespace
}  // namespace tandem
