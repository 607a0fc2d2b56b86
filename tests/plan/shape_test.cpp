// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/shape.h"

#include <gtest/gtest.h>

#include "tests/base/error_of.h"
#include "tests/checkpoint/temporary_folder.h"

namespace tandem {
namespace {

// In billions, of published models: embedding and head count as two.
TEST(Shape, FilesThatTheProgramBringsHaveTheSizeOfTheirModels) {
  const auto billions = [](const char* name) { return find_shape(name).parameters() * 1e-9; };
  EXPECT_NEAR(billions("deepseek_v3"), 671, 1);
  EXPECT_NEAR(billions("kimi_k2"), 1026, 3);
  EXPECT_NEAR(billions("qwen3_235b"), 235, 1);
  EXPECT_NEAR(billions("qwen3_32b"), 32.8, 0.2);
  EXPECT_NEAR(billions("llama4_maverick"), 400, 3);
  EXPECT_NEAR(billions("minimax_m1"), 456, 3);
  EXPECT_NEAR(billions("ernie_4_5"), 300, 2);
  EXPECT_NEAR(billions("pangu_pro"), 72, 1);
  EXPECT_NEAR(billions("step3"), 316, 1);
}

TEST(Shape, EqualLayersAreOneKindAndKeepTheirPlaces) {
  const ModelShape step3 = find_shape("step3");
  EXPECT_EQ(step3.layers(), 61);
  ASSERT_EQ(step3.runs.size(), 3u);
  EXPECT_EQ(step3.kinds().size(), 2u);
  EXPECT_EQ(step3.kinds()[0].count, 5);
  EXPECT_FALSE(step3.layer(3).ffn.routed());
  EXPECT_TRUE(step3.layer(4).ffn.routed());
  EXPECT_FALSE(step3.layer(60).ffn.routed());
  EXPECT_EQ(step3.experts(), 48);
  const ModelShape llama4 = find_shape("llama4_maverick");
  EXPECT_EQ(llama4.layers(), 48);
  EXPECT_EQ(llama4.kinds().size(), 3u);
}

// A folder, its config.json, and the file that the program brings describe the same model.
TEST(Shape, OfAConfigurationIsThatOfTheFile) {
  const TemporaryFolder folder;
  folder.write("config.json", R"({"architectures": ["Step3TextForCausalLM"], "model_type": "step3_text",
    "eos_token_id": 128805, "hidden_size": 7168, "intermediate_size": 18432, "num_attention_heads": 64,
    "num_attention_groups": 1, "num_hidden_layers": 61, "vocab_size": 128815, "rms_norm_eps": 1e-05,
    "moe_intermediate_size": 5120, "moe_num_experts": 48, "moe_top_k": 3, "rope_theta": 500000,
    "max_position_embedding": 65536, "share_expert_dim": 5120, "share_q_dim": 2048, "head_dim": 256,
    "moe_layers_enum": "4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59"})");
  const ModelShape expected = find_shape("step3");
  for (const std::string& path : {folder.path(), folder.path() + "/config.json"}) {
    const ModelShape shape = find_shape(path);
    EXPECT_EQ(shape.hidden, expected.hidden);
    EXPECT_EQ(shape.vocab, expected.vocab);
    ASSERT_EQ(shape.runs.size(), expected.runs.size());
    for (std::size_t i = 0; i < shape.runs.size(); ++i) {
      EXPECT_EQ(shape.runs[i].layer, expected.runs[i].layer) << i;
      EXPECT_EQ(shape.runs[i].count, expected.runs[i].count) << i;
    }
    EXPECT_EQ("/" + shape.name, folder.path().substr(folder.path().rfind('/')));
  }
}

TEST(Shape, WhatIsWrongIsNamed) {
  const auto error = [](const std::string& text) {
    return error_of([&] { parse_shape("name = \"m\"\nhidden = 64\nvocab = 100\n" + text, "m.toml"); }).message();
  };
  const std::string gqa = "attention = { kind = \"gqa\", heads = 4, kv_heads = 2, head_dim = 16 }\n";
  EXPECT_EQ(error(""), "m.toml: layers is missing ([[layers]])");
  EXPECT_EQ(error("[[layers]]\n" + gqa), "m.toml: layers[0].ffn is missing");
  EXPECT_EQ(error("[[layers]]\n" + gqa + "ffn = {}\n"), "m.toml: layers[0].ffn.width is missing, and so is experts");
  EXPECT_EQ(error("[[layers]]\ncount = 2000\n"),
            "m.toml: layers[0].count is 2000, has to be a whole number between 1 and 1024");
  EXPECT_EQ(error("repeat = 1000\n[[layers]]\ncount = 1024\n" + gqa + "ffn = { width = 1 }\n"),
            "m.toml: layers are 1024000, limit is 1024");
  EXPECT_EQ(
      error("[[layers]]\nattention = { kind = \"mqa\" }\n"),
      "m.toml: layers[0].attention.kind is \"mqa\", has to be one of gqa, mfa, mla, lightning; did you mean gqa?");
  EXPECT_EQ(error("[[layers]]\nattention = { kind = \"gqa\", heads = 4, kv_heads = 3, head_dim = 16 }\n"),
            "m.toml: layers[0].attention.kv_heads has to divide heads, which is 4");
  EXPECT_EQ(error("[[layers]]\n" + gqa + "ffn = { experts = 4, experts_per_token = 5, expert_width = 8 }\n"),
            "m.toml: layers[0].ffn.experts_per_token is 5, has to be a whole number between 1 and 4");
  EXPECT_EQ(error("[[layers]]\n" + gqa + "ffn = { width = 8, withd = 1 }\n"),
            "m.toml: layers[0].ffn.withd is not a known key; did you mean width?");
  const std::string unknown = error_of([] { find_shape("step4"); }).message();
  EXPECT_TRUE(unknown.starts_with("model 'step4' is not known; did you mean step3?")) << unknown;
}

}  // namespace
}  // namespace tandem
