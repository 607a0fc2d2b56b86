// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "cli/version.h"
#include "tests/checkpoint/retyped_gguf.h"
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
  EXPECT_EQ(json["weight_bytes"], 2 * json["parameters"].get<std::int64_t>());
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
       {"supported     yes", "kv per token  512 bytes in bf16, 1024 in f32", "Q4_0", "blk.0.attn_q.weight"})
    EXPECT_THAT(result.out, HasSubstr(part));
}

}  // namespace
}  // namespace tandem
