// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Step-3.5-Flash text: its configuration, in one piece and in halves. Right numbers: tests/verify.
#include "model/step3p5.h"

#include <gmock/gmock.h>

#include <numeric>

#include "base/format.h"
#include "model/config_reader.h"
#include "tests/base/error_of.h"
#include "tests/model/split_run.h"
#include "tests/model/synthetic_checkpoint.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;

// Three layers: full with 3 heads, then two with a window of 4 and 5 heads; the last two routed.
Json config_with(const char* patch) {
  Json config = Json::parse(R"({"model_type": "step3p5", "num_hidden_layers": 3, "hidden_size": 40, "vocab_size": 39,
    "max_position_embeddings": 256, "num_attention_heads": 3, "num_attention_groups": 1, "head_dim": 12,
    "intermediate_size": 80, "moe_layers_enum": "1,2", "moe_num_experts": 6, "moe_top_k": 2,
    "moe_intermediate_size": 33, "share_expert_dim": 24, "moe_router_activation": "sigmoid",
    "use_moe_router_bias": true, "moe_router_scaling_factor": 3.0, "sliding_window": 4,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
    "attention_other_setting": {"num_attention_heads": 5, "num_attention_groups": 5},
    "rope_theta": [5000000.0, 10000.0, 10000.0], "partial_rotary_factors": [0.5, 1.0, 1.0],
    "swiglu_limits": [0, 0, 0.5], "swiglu_limits_shared": [0, 0.5, 0], "eos_token_id": 38})");
  config.merge_patch(Json::parse(patch));
  return config;
}

ModelConfig read(const Json& config) {
  return read_step3p5_config(ConfigReader(config, "config.json"));
}

TEST(Step3p5Config, layers_have_their_own_heads_bases_and_windows) {
  const ModelConfig c = read(config_with("{}"));
  EXPECT_THAT(c.routed, ElementsAre(false, true, true));
  EXPECT_EQ(c.heads_of(0), 3);
  EXPECT_EQ(c.heads_of(1), 5);
  EXPECT_EQ(c.layer_ropes[0].dim, 6);
  EXPECT_EQ(c.layer_ropes[1].theta, 10000);
  EXPECT_EQ(c.kv_spec(DType::kBF16, 0).layers, 1);
  EXPECT_EQ(c.window_kv_spec(DType::kBF16, 0).layers, 2);
  EXPECT_EQ(c.window_kv_spec(DType::kBF16, 0).kv_heads, 5);
  EXPECT_EQ(c.kv_layer(2), 1);
}

// The published file of Step-3.5-Flash, as far as it describes the model: 45 layers and three for further tokens.
TEST(Step3p5Config, the_published_file_is_read_and_describes_196_billion_parameters) {
  Json config = Json::parse(R"({"model_type": "step3p5", "hidden_size": 4096, "intermediate_size": 11264,
    "num_hidden_layers": 45, "max_seq_len": 262144, "max_position_embeddings": 262144, "vocab_size": 128896,
    "torch_dtype": "bfloat16", "use_qk_norm": true, "num_attention_heads": 64, "num_attention_groups": 8,
    "head_dim": 128, "use_moe": true, "moe_num_experts": 288, "moe_top_k": 8, "moe_intermediate_size": 1280,
    "share_expert_dim": 1280, "norm_expert_weight": true, "moe_router_activation": "sigmoid",
    "moe_router_scaling_factor": 3.0, "att_impl_type": "GQA", "use_head_wise_attn_gate": true,
    "use_moe_router_bias": true, "need_fp32_gate": true, "sliding_window": 512, "attention_other_setting":
    {"attention_type": "sliding_attention", "num_attention_heads": 96, "num_attention_groups": 8, "head_dim": 128,
    "true_head_dim": 128}, "rope_scaling": {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0,
    "high_freq_factor": 32.0, "original_max_position_embeddings": 131072}, "yarn_only_types": ["full_attention"],
    "num_nextn_predict_layers": 3, "eos_token_id": [1, 2, 128007]})");
  std::string routed;
  for (int i = 0; i < 48; ++i) {
    const bool full = i % 4 == 0;
    config["layer_types"].push_back(full ? "full_attention" : "sliding_attention");
    config["rope_theta"].push_back(full ? 5e6 : 1e4);
    config["partial_rotary_factors"].push_back(full ? 0.5 : 1.0);
    if (i >= 3 && i < 45) routed += format("{}{}", i > 3 ? "," : "", i);
  }
  config["moe_layers_enum"] = routed;
  const ModelConfig c = read(config);
  EXPECT_TRUE(c.layer_ropes[0].llama3);
  EXPECT_FALSE(c.layer_ropes[1].llama3);
  EXPECT_EQ(c.kv_spec(DType::kBF16, 0).layers, 12);
  std::int64_t total = 0;
  for (const SyntheticTensor& tensor : tensors_for(config)) total += tensor.shape.elements();
  const std::int64_t h = 4096, d = 128, norms = 2 * h + 2 * d;
  const std::int64_t full = h * d * (64 + 16) + h * 64 + 64 * d * h, sliding = h * d * (96 + 16) + h * 96 + 96 * d * h;
  const std::int64_t moe = 288 * 3 * h * 1280 + 3 * h * 1280 + 288 * h + 288;
  EXPECT_EQ(total, 2 * 128896 * h + h + 12 * full + 33 * sliding + 45 * norms + 3 * 3 * h * 11264 + 42 * moe);
  EXPECT_EQ(total / 1'000'000'000, 196);
}

TEST(Step3p5Config, values_that_cannot_be_honoured_are_refused_by_name) {
  for (const auto& [patch, message] : {
           std::pair{R"({"zero_centered": false})", "zero_centered is false, supported: true"},
           {R"({"use_head_wise_attn_gate": false})", "use_head_wise_attn_gate is false, supported: true"},
           {R"({"layer_types": ["full_attention"]})", "expected at least 3 names"},
           {R"({"layer_types": ["full_attention", "linear", "linear"]})",
            "supported: full_attention, sliding_attention"},
           {R"({"sliding_window": 0})", "sliding_window is 0"},
           {R"({"rope_theta": [10000, 10000]})", "rope_theta is [10000,10000], expected at least 3 numbers"},
           {R"({"partial_rotary_factors": 0.25})", "partial_rotary_factors is 0.25, expected an even number"},
           {R"({"moe_router_activation": "tanh"})", "moe_router_activation is \"tanh\", supported: sigmoid, softmax"},
           {R"({"attention_other_setting": {"head_dim": 16}})", "head_dim is 16, supported: 12"},
           {R"({"attention_other_setting": {"num_attention_groups": 2}})",
            "num_attention_groups is 2, expected a divisor"},
       }) {
    const Json config = config_with(patch);
    EXPECT_THAT(error_of([&] { read(config); }).message(), HasSubstr(message)) << patch;
  }
}

TEST(Step3p5, halves_and_shares_give_the_bits_of_the_whole) {
  std::vector<std::int32_t> tokens(39);  // beyond the window, and enough for every expert
  std::iota(tokens.begin(), tokens.end(), 0);
  for (const Json& config :
       {config_with("{}"), config_with(R"({"layer_types": null, "use_moe_router_bias": false, "moe_top_k": 6})"),
        config_with(R"({"use_moe": false, "sliding_window": 1})"),
        config_with(R"({"layer_types": ["sliding_attention", "sliding_attention", "sliding_attention"]})")}) {
    SCOPED_TRACE(to_line(config));
    const SyntheticCheckpoint checkpoint(config, tensors_for(config));
    const std::vector<float> whole = whole_logits(*checkpoint, tokens);
    for (const std::int32_t workers : {1, 3, 8})
      EXPECT_THAT(split_logits(*checkpoint, workers, tokens), ElementsAreArray(whole)) << workers << " FFN workers";
  }
}

// The FFNs are too narrow to be cut into slices, which would be at blocks here and finer there.
TEST(Step3p5, block_fp8_gives_the_bits_of_the_values_it_stands_for) {
  Json config = config_with(
      R"({"hidden_size": 192, "intermediate_size": 30, "moe_intermediate_size": 21, "share_expert_dim": 25})");
  SyntheticTensors tensors = tensors_for(config);
  make_block_fp8(config, tensors);
  const std::vector<std::int32_t> tokens{5, 0, 38, 17, 5, 22};
  const SyntheticCheckpoint checkpoint(config, tensors);
  const std::vector<float> whole = whole_logits(*checkpoint, tokens);
  for (const std::int32_t workers : {1, 3})
    EXPECT_THAT(split_logits(*checkpoint, workers, tokens), ElementsAreArray(whole)) << workers << " FFN workers";
  widen_block_fp8(config, tensors);
  EXPECT_THAT(whole_logits(*SyntheticCheckpoint(config, tensors), tokens), ElementsAreArray(whole));
}

TEST(Step3p5, every_stored_tensor_and_the_window_matter) {
  std::vector<std::int32_t> tokens(39);
  std::iota(tokens.begin(), tokens.end(), 0);
  const Json config = config_with("{}");
  const SyntheticTensors tensors = tensors_for(config);
  const std::vector<float> expected = whole_logits(*SyntheticCheckpoint(config, tensors), tokens);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    SyntheticTensors changed = tensors;
    changed[i].values_of = "something else";
    EXPECT_NE(whole_logits(*SyntheticCheckpoint(config, changed), tokens), expected) << tensors[i].name;
  }
  for (const char* patch : {R"({"sliding_window": 5})", R"({"swiglu_limits": [0, 0, 0]})",
                            R"({"swiglu_limits_shared": [0, 0, 0]})", R"({"moe_router_scaling_factor": 1})",
                            R"({"rope_scaling": {"rope_type": "yarn", "factor": 1, "attention_factor": 2,
                                "original_max_position_embeddings": 64}})"})
    EXPECT_NE(whole_logits(*SyntheticCheckpoint(config_with(patch), tensors), tokens), expected) << patch;
}

}  // namespace
}  // namespace tandem
