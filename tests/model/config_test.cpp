// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// config.json of the architectures: what is read, what is taken when a key is missing, what is refused and in which
// words. GGUF metadata: gguf_config_test.cpp.
#include "model/config.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numbers>
#include <numeric>

#include "base/format.h"
#include "model/config_reader.h"
#include "tests/base/error_of.h"
#include "tests/model/synthetic_checkpoint.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// base with the keys of patch; a null takes the key away.
Json patched(Json base, const char* patch) {
  base.merge_patch(Json::parse(patch));
  return base;
}

ModelConfig read_llama(const char* patch = "{}") {
  const Json config = patched(llama_config(), patch);
  return read_llama_config(ConfigReader(config, "config.json"));
}

ModelConfig read_qwen3(const char* patch = "{}") {
  const Json config = patched(qwen3_config(), patch);
  return read_qwen3_config(ConfigReader(config, "config.json"));
}

ModelConfig read_qwen3_moe(const char* patch = "{}") {
  const Json config = patched(qwen3_moe_config(), patch);
  return read_qwen3_moe_config(ConfigReader(config, "config.json"));
}

ModelConfig read_step3(const char* patch = "{}") {
  const Json config = patched(step3_config(), patch);
  return read_step3_text_config(ConfigReader(config, "config.json"));
}

// A change that must be refused, and what the message must say: the key, the value, what is possible.
struct Refusal {
  const char* patch;
  ErrorCode code;
  const char* message;
};

void expect_refusals(ModelConfig (*read)(const char*), std::span<const Refusal> refusals) {
  for (const Refusal& refusal : refusals) {
    SCOPED_TRACE(refusal.patch);
    const Error error = error_of([&] { read(refusal.patch); });
    EXPECT_EQ(error.code(), refusal.code);
    EXPECT_THAT(error.message(), HasSubstr(std::string("config.json: ") + refusal.message));
  }
}

// ---- Step-3

// The text configuration of the published checkpoint, with the keys that the file has and no others.
Json published_step3() {
  Json config = Json::parse(R"({"architectures": ["Step3TextForCausalLM"], "model_type": "step3_text",
    "hidden_size": 7168, "intermediate_size": 18432, "num_hidden_layers": 61, "vocab_size": 128815,
    "max_seq_len": 65536, "max_position_embedding": 65536, "num_attention_heads": 64, "num_attention_groups": 1,
    "head_dim": 256, "share_q_dim": 2048, "moe_num_experts": 48, "moe_top_k": 3, "moe_intermediate_size": 5120,
    "share_expert_dim": 5120, "norm_expert_weight": false, "rope_theta": 500000, "torch_dtype": "bfloat16"})");
  std::string layers = "4";
  for (int i = 5; i <= 59; ++i) layers += format(",{}", i);
  config["moe_layers_enum"] = layers;
  return config;
}

TEST(Step3Config, the_published_text_config_is_read) {
  const Json json = published_step3();
  const ModelConfig c = read_step3_text_config(ConfigReader(json, "config.json"));
  EXPECT_EQ(c.architecture, "step3_text");
  EXPECT_EQ(c.layers, 61);
  EXPECT_EQ(c.hidden, 7168);
  EXPECT_EQ(c.vocab, 128815);
  EXPECT_EQ(c.context_tokens_max, 65536);
  EXPECT_EQ(c.heads, 64);
  EXPECT_EQ(c.kv_heads, 1);
  EXPECT_EQ(c.head_dim, 256);
  EXPECT_EQ(c.query_rank, 2048);
  EXPECT_EQ(c.ffn_width, 18432);
  EXPECT_EQ(c.experts, 48);
  EXPECT_EQ(c.experts_per_token, 3);
  EXPECT_EQ(c.expert_width, 5120);
  EXPECT_EQ(c.shared_width, 5120);
  EXPECT_EQ(c.rope.theta, 500000);
  EXPECT_EQ(c.rope.dim, 256);
  EXPECT_FALSE(c.rope.llama3);
  ASSERT_EQ(c.routed.size(), 61u);
  for (int i = 0; i < 61; ++i) EXPECT_EQ(c.is_routed(i), i >= 4 && i <= 59) << "layer " << i;
  EXPECT_EQ(c.kv_token_elements(), 61 * 512) << "one key head and one value head";
  // Not in the file: an untied head, weights as the softmax gives them, the reference's epsilon.
  EXPECT_FALSE(c.tied_head);
  EXPECT_FALSE(c.renormalise);
  EXPECT_EQ(c.norm_eps, 1e-5f);
}

TEST(Step3Config, moe_layers_enum_is_a_string_a_list_or_missing) {
  EXPECT_THAT(read_step3(R"({"moe_layers_enum": "0,2"})").routed, ElementsAre(true, false, true));
  EXPECT_THAT(read_step3(R"({"moe_layers_enum": " 1, 2 "})").routed, ElementsAre(false, true, true));
  EXPECT_THAT(read_step3(R"({"moe_layers_enum": [2, 1]})").routed, ElementsAre(false, true, true));
  EXPECT_THAT(read_step3(R"({"moe_layers_enum": []})").routed, ElementsAre(false, false, false));
  EXPECT_THAT(read_step3(R"({"moe_layers_enum": ""})").routed, ElementsAre(false, false, false));
  EXPECT_THAT(read_step3(R"({"moe_layers_enum": null})").routed, ElementsAre(false, true, true));
}

TEST(Step3Config, e4m3_weights_in_blocks_of_128_are_announced) {
  EXPECT_FALSE(read_step3().block_fp8);
  EXPECT_TRUE(
      read_step3(R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})").block_fp8);
  EXPECT_TRUE(read_step3(R"({"quantization_config": {"quant_method": "fp8", "fmt": "e4m3",
    "activation_scheme": "dynamic", "weight_block_size": [128, 128]}})")
                  .block_fp8);
}

TEST(Step3Config, what_missing_keys_mean) {
  EXPECT_FALSE(read_step3(R"({"norm_expert_weight": null})").renormalise);
  EXPECT_TRUE(read_step3(R"({"norm_expert_weight": true})").renormalise);
  EXPECT_FALSE(read_step3(R"({"tie_word_embeddings": null})").tied_head);
  EXPECT_TRUE(read_step3(R"({"tie_word_embeddings": true})").tied_head);
  EXPECT_EQ(read_step3(R"({"rms_norm_eps": null})").norm_eps, 1e-5f);
  EXPECT_EQ(read_step3(R"({"rms_norm_eps": 0.001})").norm_eps, 1e-3f);
  EXPECT_EQ(read_step3(R"({"share_q_dim": null})").query_rank, 16) << "head_dim";
  EXPECT_THAT(read_step3(R"({"eos_token_id": null})").eos_ids, ElementsAre());
  EXPECT_THAT(read_step3(R"({"eos_token_id": [3, 39]})").eos_ids, ElementsAre(3, 39));
}

TEST(Step3Config, the_context_is_named_in_the_singular) {
  EXPECT_EQ(read_step3(R"({"max_position_embedding": 4096, "max_position_embeddings": 8192})").context_tokens_max,
            4096);
  EXPECT_EQ(read_step3(R"({"max_position_embedding": null, "max_position_embeddings": 8192})").context_tokens_max,
            65536);
}

constexpr Refusal kStep3Refusals[] = {
    {R"({"moe_layers_enum": "1,"})", ErrorCode::kInvalidData,
     "moe_layers_enum is \"1,\", expected layer numbers in 0 … 2"},
    {R"({"moe_layers_enum": ",1"})", ErrorCode::kInvalidData, "moe_layers_enum is \",1\""},
    {R"({"moe_layers_enum": "1 2"})", ErrorCode::kInvalidData, "moe_layers_enum is \"1 2\""},
    {R"({"moe_layers_enum": "1,x"})", ErrorCode::kInvalidData, "moe_layers_enum is \"1,x\""},
    {R"({"moe_layers_enum": " "})", ErrorCode::kInvalidData, "moe_layers_enum is \" \""},
    {R"({"moe_layers_enum": "1,3"})", ErrorCode::kInvalidData,
     "moe_layers_enum is \"1,3\", expected layer numbers in 0 … 2"},
    {R"({"moe_layers_enum": "-1"})", ErrorCode::kInvalidData, "moe_layers_enum is \"-1\""},
    {R"({"moe_layers_enum": "99999999999999999999"})", ErrorCode::kInvalidData, "moe_layers_enum is"},
    {R"({"moe_layers_enum": [1, "2"]})", ErrorCode::kInvalidData, "moe_layers_enum is [1,\"2\"]"},
    {R"({"moe_layers_enum": [1.5]})", ErrorCode::kInvalidData, "moe_layers_enum is [1.5]"},
    {R"({"moe_layers_enum": [18446744073709551615]})", ErrorCode::kInvalidData, "moe_layers_enum is"},
    {R"({"moe_layers_enum": 1})", ErrorCode::kInvalidData, "moe_layers_enum is 1"},
    {R"({"quantization_config": {"quant_method": "fp8"}})", ErrorCode::kUnsupported,
     "quantization_config: weight_block_size is missing, supported: [128, 128]"},
    {R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 64]}})", ErrorCode::kUnsupported,
     "quantization_config: weight_block_size is [128,64], supported: [128, 128]"},
    {R"({"quantization_config": {"quant_method": "awq", "weight_block_size": [128, 128]}})", ErrorCode::kUnsupported,
     "quantization_config: quant_method is \"awq\", supported: fp8"},
    {R"({"quantization_config": {"quant_method": "fp8", "fmt": "e5m2"}})", ErrorCode::kUnsupported,
     "quantization_config: fmt is \"e5m2\", supported: e4m3"},
    {R"({"quantization_config": {"quant_method": "fp8", "activation_scheme": "static"}})", ErrorCode::kUnsupported,
     "quantization_config: activation_scheme is \"static\", supported: dynamic"},
    {R"({"quantization_config": "fp8"})", ErrorCode::kInvalidData,
     "quantization_config is \"fp8\", expected an object"},
    {R"({"rope_scaling": {"rope_type": "yarn"}})", ErrorCode::kUnsupported, "rope_scaling is {\"rope_type\":\"yarn\"}"},
    {R"({"rope_parameters": {"rope_theta": 5}})", ErrorCode::kUnsupported, "rope_parameters is {\"rope_theta\":5}"},
    {R"({"num_attention_groups": 2})", ErrorCode::kUnsupported, "num_attention_groups is 2, supported: 1"},
    {R"({"num_hidden_layers": null})", ErrorCode::kInvalidData, "num_hidden_layers is missing, expected an integer"},
    {R"({"num_hidden_layers": 0})", ErrorCode::kInvalidData, "num_hidden_layers is 0, expected 1 … 1024"},
    {R"({"num_hidden_layers": 1025})", ErrorCode::kInvalidData, "num_hidden_layers is 1025, expected 1 … 1024"},
    {R"({"head_dim": null})", ErrorCode::kInvalidData, "head_dim is missing"},
    {R"({"head_dim": 15})", ErrorCode::kInvalidData, "head_dim is 15, expected an even number"},
    {R"({"head_dim": 1048578})", ErrorCode::kInvalidData, "head_dim is 1048578, expected 2 … 1048576"},
    {R"({"moe_top_k": 7})", ErrorCode::kInvalidData, "moe_top_k is 7, expected 1 … 6"},
    {R"({"moe_num_experts": 4097})", ErrorCode::kInvalidData, "moe_num_experts is 4097, expected 1 … 4096"},
    {R"({"share_expert_dim": 0})", ErrorCode::kInvalidData, "share_expert_dim is 0"},
    {R"({"norm_expert_weight": 1})", ErrorCode::kInvalidData, "norm_expert_weight is 1, expected true or false"},
    {R"({"tie_word_embeddings": "no"})", ErrorCode::kInvalidData, "tie_word_embeddings is \"no\""},
    {R"({"eos_token_id": 40})", ErrorCode::kInvalidData, "eos_token_id is 40, expected token ids in 0 … 39"},
    {R"({"max_position_embedding": 0})", ErrorCode::kInvalidData, "max_position_embedding is 0"},
};

TEST(Step3Config, values_that_cannot_be_honoured_are_refused_by_name) {
  expect_refusals(read_step3, kStep3Refusals);
}

// ---- Llama

TEST(LlamaConfig, what_missing_keys_mean) {
  const ModelConfig c = read_llama(R"({"head_dim": null, "num_key_value_heads": null, "eos_token_id": null})");
  EXPECT_EQ(c.architecture, "llama");
  EXPECT_EQ(c.head_dim, 12) << "hidden_size / num_attention_heads";
  EXPECT_EQ(c.kv_heads, 4) << "as many as heads";
  EXPECT_EQ(c.norm_eps, 1e-6f);
  EXPECT_EQ(c.rope.theta, 10000);
  EXPECT_EQ(c.rope.dim, 12);
  EXPECT_FALSE(c.tied_head);
  EXPECT_TRUE(c.eos_ids.empty());
  EXPECT_THAT(c.routed, ElementsAre(false, false));
  EXPECT_EQ(c.experts, 0);
  EXPECT_EQ(c.kv_token_elements(), 2 * 2 * 4 * 12);
}

TEST(LlamaConfig, rope_scaling_is_absent_default_or_llama3) {
  EXPECT_FALSE(read_llama(R"({"rope_scaling": null})").rope.llama3);
  EXPECT_FALSE(read_llama(R"({"rope_scaling": {"rope_type": "default"}})").rope.llama3);
  EXPECT_FALSE(read_llama(R"({"rope_scaling": {"type": "default"}})").rope.llama3);
  const RopeConfig rope = read_llama(R"({"rope_theta": 500000, "rope_scaling": {"rope_type": "llama3", "factor": 8,
    "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192}})")
                              .rope;
  EXPECT_TRUE(rope.llama3);
  EXPECT_EQ(rope.theta, 500000);
  EXPECT_EQ(rope.factor, 8);
  EXPECT_EQ(rope.low_freq_factor, 1);
  EXPECT_EQ(rope.high_freq_factor, 4);
  EXPECT_EQ(rope.original_context, 8192);
}

TEST(LlamaConfig, rope_parameters_of_newer_files_hold_base_and_scaling) {
  const RopeConfig plain = read_llama(R"({"rope_parameters": {"rope_theta": 500000, "rope_type": "default"}})").rope;
  EXPECT_EQ(plain.theta, 500000);
  EXPECT_FALSE(plain.llama3);
  const RopeConfig scaled = read_llama(R"({"rope_parameters": {"rope_theta": 500000, "rope_type": "llama3", "factor": 8,
    "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192}})")
                                .rope;
  EXPECT_EQ(scaled.theta, 500000);
  EXPECT_TRUE(scaled.llama3);
}

constexpr Refusal kLlamaRefusals[] = {
    {R"({"rope_scaling": {"rope_type": "linear", "factor": 2}})", ErrorCode::kUnsupported,
     "rope_scaling: rope_type is \"linear\", supported: llama3, yarn, default"},
    {R"({"rope_scaling": {"type": "dynamic"}})", ErrorCode::kUnsupported, "rope_scaling: type is \"dynamic\""},
    {R"({"rope_scaling": {"long_factor": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
         "short_factor": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], "type": "longrope"}})",
     ErrorCode::kUnsupported, "rope_scaling: type is \"longrope\""},
    {R"({"rope_scaling": "linear"})", ErrorCode::kInvalidData, "rope_scaling is \"linear\", expected an object"},
    {R"({"rope_scaling": {"rope_type": 3}})", ErrorCode::kInvalidData, "rope_scaling: rope_type is 3"},
    {R"({"rope_scaling": {"rope_type": "llama3"}})", ErrorCode::kInvalidData, "rope_scaling: factor is missing"},
    {R"({"rope_scaling": {"rope_type": "llama3", "factor": 0.5}})", ErrorCode::kInvalidData,
     "rope_scaling: factor is 0.5, expected 1 … 1000000"},
    {R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
         "original_max_position_embeddings": 64}})",
     ErrorCode::kInvalidData, "rope_scaling: high_freq_factor is 4, expected more than low_freq_factor"},
    {R"({"rope_parameters": {"rope_theta": 5, "rope_type": "longrope"}})", ErrorCode::kUnsupported,
     "rope_parameters: rope_type is \"longrope\", supported: llama3, yarn, default"},
    {R"({"rope_scaling": {"type": "yarn", "factor": 4}})", ErrorCode::kInvalidData,
     "rope_scaling: original_max_position_embeddings is missing"},
    {R"({"rope_theta": 1, "rope_scaling": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 64}})",
     ErrorCode::kInvalidData, "rope_theta is 1, expected more than 1"},
    {R"({"rope_parameters": {"rope_theta": 0}})", ErrorCode::kInvalidData, "rope_parameters: rope_theta is 0"},
    {R"({"quantization_config": {"bits": 4}})", ErrorCode::kUnsupported,
     "quantization_config: quant_method is missing, supported: fp8"},
    {R"({"hidden_act": "gelu"})", ErrorCode::kUnsupported, "hidden_act is \"gelu\", supported: silu"},
    {R"({"attention_bias": true})", ErrorCode::kUnsupported, "attention_bias is true, supported: false"},
    {R"({"mlp_bias": true})", ErrorCode::kUnsupported, "mlp_bias is true, supported: false"},
    {R"({"num_key_value_heads": 3})", ErrorCode::kInvalidData,
     "num_key_value_heads is 3, expected a divisor of 4 heads"},
    {R"({"head_dim": null, "hidden_size": 50})", ErrorCode::kInvalidData,
     "num_attention_heads is 4, expected a divisor of hidden_size 50"},
    {R"({"head_dim": null, "hidden_size": 12})", ErrorCode::kInvalidData, "head_dim is missing, expected an even"},
    {R"({"head_dim": 4194304, "num_attention_heads": 4096, "num_key_value_heads": 1})", ErrorCode::kInvalidData,
     "head_dim is 4194304, expected 2 … 1024"},
    {R"({"hidden_size": 4194305})", ErrorCode::kInvalidData, "hidden_size is 4194305, expected 1 … 4194304"},
    {R"({"hidden_size": 18446744073709551615})", ErrorCode::kInvalidData, "hidden_size is 18446744073709551615"},
    {R"({"hidden_size": -9223372036854775808})", ErrorCode::kInvalidData, "hidden_size is -9223372036854775808"},
    {R"({"hidden_size": 48.0})", ErrorCode::kInvalidData, "hidden_size is 48.0, expected an integer"},
    {R"({"vocab_size": "40"})", ErrorCode::kInvalidData, "vocab_size is \"40\", expected an integer"},
    {R"({"intermediate_size": null})", ErrorCode::kInvalidData, "intermediate_size is missing"},
    {R"({"max_position_embeddings": 2000000000})", ErrorCode::kInvalidData, "max_position_embeddings is 2000000000"},
    {R"({"rms_norm_eps": -1e-5})", ErrorCode::kInvalidData, "rms_norm_eps is -1e-05, expected 0 … 1"},
    {R"({"rope_theta": 0})", ErrorCode::kInvalidData, "rope_theta is 0, expected 1 … "},
    {R"({"rope_theta": "10000"})", ErrorCode::kInvalidData, "rope_theta is \"10000\", expected a number"},
    {R"({"eos_token_id": [1, -1]})", ErrorCode::kInvalidData, "eos_token_id is [1,-1], expected token ids in 0 … 39"},
    {R"({"eos_token_id": 18446744073709551615})", ErrorCode::kInvalidData, "eos_token_id is 18446744073709551615"},
};

TEST(LlamaConfig, values_that_cannot_be_honoured_are_refused_by_name) {
  expect_refusals(read_llama, kLlamaRefusals);
}

// ---- Qwen3

TEST(Qwen3Config, head_dim_is_a_size_of_its_own) {
  const ModelConfig c = read_qwen3();
  EXPECT_EQ(c.architecture, "qwen3");
  EXPECT_EQ(c.heads, 5);
  EXPECT_EQ(c.kv_heads, 1);
  EXPECT_EQ(c.head_dim, 12);
  EXPECT_EQ(c.rope.dim, 12);
  EXPECT_EQ(c.rope.theta, 1000000);
  EXPECT_TRUE(c.tied_head);
  EXPECT_EQ(c.experts, 0);
  EXPECT_THAT(c.routed, ElementsAre(false, false, false));
}

// As the model's authors publish it for contexts of four times the trained length.
TEST(Qwen3Config, yarn_slows_the_rotation_and_scales_it) {
  const RopeConfig rope = read_qwen3(R"({"rope_scaling": {"rope_type": "yarn", "factor": 4.0,
    "original_max_position_embeddings": 32768}})")
                              .rope;
  EXPECT_TRUE(rope.yarn);
  EXPECT_EQ(rope.original_context, 32768);
  EXPECT_FLOAT_EQ(rope.magnitude, 1.1386294f) << "0.1 ln 4 + 1";
  // Of six pairs with base 1e6 the first two turn more than 32 times in 32768 positions, the last three less than once.
  const std::vector<float> slowed = rope_inv_freq(rope);
  EXPECT_FLOAT_EQ(slowed[0], 1);
  EXPECT_FLOAT_EQ(slowed[5], std::pow(1e6f, -10.0f / 12) / 4);
  EXPECT_FLOAT_EQ(read_qwen3(R"({"rope_scaling": {"type": "yarn", "factor": 4, "attention_factor": 1.5,
    "original_max_position_embeddings": 64}})")
                      .rope.magnitude,
                  1.5f);
  EXPECT_FLOAT_EQ(read_qwen3(R"({"rope_scaling": {"type": "yarn", "factor": 4, "mscale": 1, "mscale_all_dim": 1,
    "original_max_position_embeddings": 64}})")
                      .rope.magnitude,
                  1);
}

constexpr Refusal kQwen3Refusals[] = {
    {R"({"head_dim": null})", ErrorCode::kInvalidData, "head_dim is missing, expected an integer"},
    {R"({"use_sliding_window": true})", ErrorCode::kUnsupported, "use_sliding_window is true, supported: false"},
    {R"({"attention_bias": true})", ErrorCode::kUnsupported, "attention_bias is true, supported: false"},
    {R"({"rope_scaling": {"rope_type": "linear", "factor": 4.0}})", ErrorCode::kUnsupported,
     "rope_scaling: rope_type is \"linear\", supported: llama3, yarn, default"},
    {R"({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 1, "beta_slow": 2,
         "original_max_position_embeddings": 64}})",
     ErrorCode::kInvalidData, "rope_scaling: beta_fast is 1, expected at least beta_slow"},
};

TEST(Qwen3Config, values_that_cannot_be_honoured_are_refused_by_name) {
  expect_refusals(read_qwen3, kQwen3Refusals);
}

TEST(Qwen3MoeConfig, layers_are_routed_unless_the_file_says_otherwise) {
  EXPECT_THAT(read_qwen3_moe().routed, ElementsAre(false, true, false));
  EXPECT_THAT(read_qwen3_moe(R"({"mlp_only_layers": null})").routed, ElementsAre(true, true, true));
  EXPECT_THAT(read_qwen3_moe(R"({"mlp_only_layers": []})").routed, ElementsAre(true, true, true));
  EXPECT_THAT(read_qwen3_moe(R"({"mlp_only_layers": [], "decoder_sparse_step": 2})").routed,
              ElementsAre(false, true, false));
  EXPECT_THAT(read_qwen3_moe(R"({"mlp_only_layers": [1], "decoder_sparse_step": 2})").routed,
              ElementsAre(false, false, false));
  EXPECT_THAT(read_qwen3_moe(R"({"mlp_only_layers": [], "decoder_sparse_step": null})").routed,
              ElementsAre(true, true, true));
}

TEST(Qwen3MoeConfig, experts_have_no_shared_one_and_weights_as_the_file_says) {
  const ModelConfig c = read_qwen3_moe();
  EXPECT_EQ(c.architecture, "qwen3_moe");
  EXPECT_EQ(c.experts, 6);
  EXPECT_EQ(c.experts_per_token, 2);
  EXPECT_EQ(c.expert_width, 33);
  EXPECT_EQ(c.shared_width, 0);
  EXPECT_TRUE(c.renormalise);
  EXPECT_FALSE(read_qwen3_moe(R"({"norm_topk_prob": null})").renormalise);
  EXPECT_TRUE(c.has_shared_ffn(0));
  EXPECT_FALSE(c.has_shared_ffn(1));
}

constexpr Refusal kQwen3MoeRefusals[] = {
    {R"({"num_experts": null})", ErrorCode::kInvalidData, "num_experts is missing"},
    {R"({"num_experts_per_tok": 7})", ErrorCode::kInvalidData, "num_experts_per_tok is 7, expected 1 … 6"},
    {R"({"decoder_sparse_step": 0})", ErrorCode::kInvalidData, "decoder_sparse_step is 0, expected 1 … 1024"},
    {R"({"mlp_only_layers": 1})", ErrorCode::kInvalidData, "mlp_only_layers is 1, expected a list of layer numbers"},
    {R"({"mlp_only_layers": [3]})", ErrorCode::kInvalidData, "mlp_only_layers is [3], expected layer numbers in 0 … 2"},
    {R"({"mlp_only_layers": [-1]})", ErrorCode::kInvalidData, "mlp_only_layers is [-1], expected layer numbers"},
    {R"({"mlp_only_layers": ["0"]})", ErrorCode::kInvalidData, "mlp_only_layers is [\"0\"], expected layer numbers"},
};

TEST(Qwen3MoeConfig, values_that_cannot_be_honoured_are_refused_by_name) {
  expect_refusals(read_qwen3_moe, kQwen3MoeRefusals);
}

// ---- the file and its architecture

TEST(ReadConfig, the_model_type_says_who_reads_the_file) {
  EXPECT_EQ(read_config(*SyntheticCheckpoint(llama_config(), {})).architecture, "llama");
  EXPECT_EQ(read_config(*SyntheticCheckpoint(qwen3_config(), {})).architecture, "qwen3");
  EXPECT_EQ(read_config(*SyntheticCheckpoint(qwen3_moe_config(), {})).architecture, "qwen3_moe");
  EXPECT_EQ(read_config(*SyntheticCheckpoint(step3_config(), {})).architecture, "step3_text");
}

TEST(ReadConfig, an_unknown_architecture_is_named) {
  const Error unknown = error_of([] { read_config(*SyntheticCheckpoint({{"model_type", "gpt_neox"}}, {})); });
  EXPECT_EQ(unknown.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(
      unknown.message(),
      HasSubstr("config.json: model_type is \"gpt_neox\", supported: deepseek_v3, kimi_k2, llama, qwen3, qwen3_moe, "
                "step3_text, step3_vl, step3p5"));
  const Error missing = error_of([] { read_config(*SyntheticCheckpoint(Json::object(), {})); });
  EXPECT_EQ(missing.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(missing.message(), HasSubstr("model_type is missing"));
  const Error number = error_of([] { read_config(*SyntheticCheckpoint({{"model_type", 3}}, {})); });
  EXPECT_EQ(number.code(), ErrorCode::kInvalidData);
  EXPECT_THAT(number.message(), HasSubstr("model_type is 3, expected a string"));
}

TEST(ConfigReader, a_long_value_is_shortened_between_characters) {
  for (int shift = 0; shift < 4; ++shift) {
    std::string value(static_cast<std::size_t>(shift), 'x');
    for (int i = 0; i < 60; ++i) value += "界";
    const Json config{{"hidden_act", value}};
    const Error error = error_of([&] { ConfigReader(config, "config.json").unsupported("hidden_act", "silu"); });
    EXPECT_THAT(error.message(), HasSubstr("界..., supported: silu")) << shift;
    EXPECT_LT(error.message().size(), 140u);
  }
}

// ---- rotary frequencies

TEST(RopeInvFreq, plain_frequencies_fall_with_the_dimension) {
  const std::vector<float> f = rope_inv_freq({.theta = 10000, .dim = 8});
  EXPECT_THAT(f, ElementsAre(1.0f, 0.1f, 0.01f, 0.001f));
}

TEST(RopeInvFreq, llama3_keeps_short_wavelengths_and_slows_long_ones) {
  const RopeConfig plain{.theta = 500000, .dim = 64};
  RopeConfig scaled = plain;
  scaled.llama3 = true;
  scaled.factor = 8;
  scaled.low_freq_factor = 1;
  scaled.high_freq_factor = 4;
  scaled.original_context = 8192;
  const std::vector<float> before = rope_inv_freq(plain), after = rope_inv_freq(scaled);
  int kept = 0, between = 0, slowed = 0;
  for (std::size_t m = 0; m < before.size(); ++m) {
    const double turns = 8192 * before[m] / (2 * std::numbers::pi);  // in the original context
    const double share = turns > 4 ? 1 : turns < 1 ? 0 : (turns - 1) / 3;
    EXPECT_NEAR(after[m], before[m] * (share + (1 - share) / 8), 1e-6 * before[m]) << m;
    ++(share == 1 ? kept : share == 0 ? slowed : between);
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(between, 0);
  EXPECT_GT(slowed, 0);
}

TEST(RopeInvFreq, divisors_of_the_file_are_applied_to_each_frequency) {
  EXPECT_THAT(rope_inv_freq({.theta = 10000, .dim = 4, .divisors = {2, 8}}), ElementsAre(0.5f, 0.00125f));
}

}  // namespace
}  // namespace tandem
