// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "cli/version.h"
#include "tests/checkpoint/retyped_gguf.h"
#include "tests/checkpoint/temporary_folder.h"
#include "tests/cli/program.h"

namespace tandem {
namespace {

using testing::HasSubstr;

Json inspect(const std::string& path, bool tensors = false) {
  std::vector<std::string> arguments{"inspect", path, "--json"};
  if (tensors) arguments.push_back("--tensors");
  const ProgramResult result = run_program(arguments);
  EXPECT_EQ(result.status, 0) << result.err;
  return parse_json(result.out, "output");
}

TEST(Inspect, CountsWhatIsThere) {
  const Json json = inspect("tests/goldens/step3_text_bf16", true);
  EXPECT_EQ(json["architecture"], "step3_text");
  EXPECT_EQ(json["supported"], true);
  EXPECT_EQ(json["layers"], 4);
  // One head of 64 for keys and one for values in each of four layers.
  EXPECT_EQ(json["kv_token_bytes"]["bf16"], 4 * 2 * 64 * 2);
  EXPECT_EQ(json["kv_token_bytes"]["f32"], 4 * 2 * 64 * 4);
  EXPECT_EQ(json["weight_bytes"]["stored"], 2 * json["parameters"].get<std::int64_t>());
  std::int64_t parameters = 0;
  for (const Json& part : json["parts"]) parameters += part["parameters"].get<std::int64_t>();
  EXPECT_EQ(parameters, json["parameters"]);
  // gate, up and down of 8 experts in two layers
  EXPECT_EQ(json["parts"]["experts"]["parameters"], 2 * 8 * 3 * 80 * 128);
  EXPECT_EQ(json["tensors"].size(), json["types"]["BF16"]["tensors"].get<std::size_t>());
}

TEST(Inspect, NamesEveryTensorThatIsNotSupported) {
  const TemporaryFolder folder;
  const Json json = inspect(retyped_gguf(folder, "tests/goldens/llama_gguf/llama-q4_0.gguf"));
  EXPECT_EQ(json["supported"], false);
  for (const char* part : {"IQ4_NL", "token_embd.weight", "blk.1.ffn_down.weight"})
    EXPECT_THAT(json["reason"].get<std::string>(), HasSubstr(part));
  EXPECT_EQ(json["types"]["IQ4_NL"]["tensors"], 16);
}

TEST(Inspect, KnowsMixturesOfTypes) {
  const Json json = inspect("tests/goldens/llama_gguf/llama-q4_k_m.gguf");
  EXPECT_EQ(json["supported"], true);
  EXPECT_EQ(json["types"]["Q6_K"]["tensors"], 5);
}

TEST(Inspect, TextHasTheSame) {
  const ProgramResult result = run_program({"inspect", "tests/goldens/llama_gguf/llama-q4_0.gguf", "--tensors"});
  EXPECT_EQ(result.status, 0);
  for (const char* part :
       {"supported     yes", "kv per token  512 bytes in bf16, 288 in fp8, 1024 in f32", "Q4_0", "blk.0.attn_q.weight"})
    EXPECT_THAT(result.out, HasSubstr(part));
}

// The language model of the published Step-3, and its parameter accounting to the digit.
TEST(Inspect, AConfigurationAloneIsEnoughToCount) {
  const TemporaryFolder folder;
  folder.write("config.json", R"({"architectures": ["Step3TextForCausalLM"], "model_type": "step3_text",
    "hidden_size": 7168, "intermediate_size": 18432, "num_hidden_layers": 61, "vocab_size": 128815, "max_seq_len": 65536,
    "max_position_embedding": 65536, "num_attention_heads": 64, "num_attention_groups": 1, "head_dim": 256,
    "share_q_dim": 2048, "moe_num_experts": 48, "moe_top_k": 3, "moe_intermediate_size": 5120, "share_expert_dim": 5120,
    "norm_expert_weight": false, "rope_theta": 500000, "torch_dtype": "bfloat16",
    "moe_layers_enum": "4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59"})");
  const Json json = inspect(folder.path());
  const Json& accounts = json["parameter_accounts"];
  EXPECT_EQ(accounts["attention layer"], 169'347'072);
  EXPECT_EQ(accounts["dense FFN layer"], 396'361'728);
  EXPECT_EQ(accounts["routed FFN layer"], 5'395'267'584);
  EXPECT_EQ(accounts["total"], 316'294'538'240);
  EXPECT_EQ(json["weight_bytes"]["bf16"], 2 * 316'294'538'240);
  EXPECT_EQ(json["kv_token_bytes"]["bf16"], 62'464);
  EXPECT_EQ(json["kv_token_bytes"]["fp8"], 31'232 + 61 * 2 * 4);

  const ProgramResult text = run_program({"inspect", folder.path("config.json"), "--layout", "2A3F"});
  EXPECT_EQ(text.status, 0) << text.err;
  for (const char* part : {"316,294,538,240", "5,395,267,584", "bf16", "fp8", "A1", "F2"})
    EXPECT_THAT(text.out, HasSubstr(part));
}

// All of it, with the eyes. What the file leaves out of vision_config are the values of the published weights.
TEST(Inspect, ThePublishedStep3SeesWith4675MillionParameters) {
  const TemporaryFolder folder;
  folder.write("config.json", R"({"architectures": ["Step3VLForConditionalGeneration"], "model_type": "step3_vl",
    "im_end_token": "<im_end>", "im_patch_token": "<im_patch>", "im_start_token": "<im_start>", "image_token_len": 169,
    "patch_token_len": 81, "understand_projector_stride": 2, "projector_bias": false, "image_token_id": 128001,
    "bos_token_id": 0, "eos_token_id": 128805, "vision_config": {"hidden_size": 1792},
    "text_config": {"architectures": ["Step3TextForCausalLM"], "model_type": "step3_text",
      "hidden_size": 7168, "intermediate_size": 18432, "num_hidden_layers": 61, "vocab_size": 128815,
      "max_seq_len": 65536, "max_position_embedding": 65536, "num_attention_heads": 64, "num_attention_groups": 1,
      "head_dim": 256, "share_q_dim": 2048, "moe_num_experts": 48, "moe_top_k": 3, "moe_intermediate_size": 5120,
      "share_expert_dim": 5120, "norm_expert_weight": false, "rope_theta": 500000, "torch_dtype": "bfloat16",
      "moe_layers_enum": "4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59"}})");
  const Json json = inspect(folder.path());
  EXPECT_EQ(json["supported"], true) << json["reason"];
  EXPECT_EQ(json["parts"]["vision tower"]["parameters"], 4'285'292'032);
  EXPECT_EQ(json["parts"]["projector"]["parameters"], 390'082'560);
  EXPECT_EQ(json["parameter_accounts"]["language model"], 316'294'538'240);
  EXPECT_EQ(json["parameter_accounts"]["total"], 320'969'912'832);
  EXPECT_EQ(json["weight_bytes"]["bf16"], 2 * 320'969'912'832);
  const ProgramResult text = run_program({"inspect", folder.path("config.json")});
  for (const char* part : {"320,969,912,832", "vision        63 layers, 1792 wide, 16 heads, MLP 15360 wide"})
    EXPECT_THAT(text.out, HasSubstr(part));
}

TEST(Inspect, TheSharesOfALayoutAddUp) {
  for (const char* layout : {"1A3F", "1A1x2F"}) {
    const ProgramResult result = run_program({"inspect", "tests/goldens/step3_vl", "--json", "--layout", layout});
    const Json json = parse_json(result.out, "output");
    std::int64_t bytes = 0;
    for (const auto& [worker, parts] : json["workers"].items())
      for (const Json& part : parts["stored"]) bytes += part["bytes"].get<std::int64_t>();
    EXPECT_TRUE(json["workers"].contains("F1") && json["workers"].contains("vision"));
    EXPECT_EQ(bytes, json["weight_bytes"]["stored"].get<std::int64_t>()) << layout;
  }
}

TEST(Inspect, SaysWhatIsWrongWithALayoutOrAConfiguration) {
  EXPECT_THAT(run_program({"inspect", "tests/goldens/llama", "--layout", "2F"}).err, HasSubstr("layout is \"2F\""));
  const ProgramResult narrow = run_program({"inspect", "tests/goldens/qwen3_moe", "--layout", "1A1x4F"});
  EXPECT_EQ(narrow.status, 1);
  EXPECT_THAT(narrow.err, HasSubstr("experts are 64 wide in blocks of 32, which can be cut into 2 parts, not into 4"));
  const TemporaryFolder folder;
  folder.write("config.json", "[]");
  EXPECT_THAT(run_program({"inspect", folder.path()}).err, HasSubstr("not a JSON object"));
}

}  // namespace
}  // namespace tandem
