// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Recorded logits, routes and greedy tokens of independent implementations, through the whole engine: every backend and
// layout, in f32 and with bf16 KV.
#include <gtest/gtest.h>

#include "base/format.h"
#include "ops/cuda/device.h"
#include "tests/verify/gguf_copy.h"
#include "verify/expectations.h"
#include "verify/verify.h"

namespace tandem {
namespace {

struct Case {
  std::string checkpoint;  // under tests/goldens
  std::string backend;
  DType kv_dtype;
  std::string layout;
  bool two_gpus = false;  // FFN workers on the second
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* checkpoint :
       {"llama", "qwen3", "qwen3_moe", "step3_text_bf16", "step3_text_d256", "step3_text_fp8", "step3_vl",
        "deepseek_v3", "step3p5", "llama_gguf/llama-f16.gguf", "llama_gguf/llama-q8_0.gguf",
        "llama_gguf/llama-q4_0.gguf", "llama_gguf/llama-q4_1.gguf", "llama_gguf/llama-q4_k_m.gguf"}) {
    all.push_back({checkpoint, "reference", DType::kF32, "local"});
    // Of these small models one keeps the bf16 limits with E4M3, too.
    const bool bears_fp8 = std::string_view(checkpoint) == "step3_text_d256";
    if (bears_fp8) all.push_back({checkpoint, "reference", DType::kF8E4M3, "local"});
    for (const char* layout : {"local", "1A1F", "2A2F"}) {
      all.push_back({checkpoint, "cpu", DType::kF32, layout});
      all.push_back({checkpoint, "cpu", DType::kBF16, layout});
      if (!cuda::look_at_device().built) continue;
      all.push_back({checkpoint, "cuda", DType::kF32, layout});
      all.push_back({checkpoint, "cuda", DType::kBF16, layout});
      if (bears_fp8) all.push_back({checkpoint, "cuda", DType::kF8E4M3, layout});
      if (std::string_view(layout) != "local") all.push_back({checkpoint, "cuda", DType::kBF16, layout, true});
    }
  }
  return all;
}

class Golden : public testing::TestWithParam<Case> {};

TEST_P(Golden, StaysWithinTheRecordedLimits) {
  const Case& c = GetParam();
  if (const std::string reason = cuda::why_unusable(cuda::look_at_device()); c.backend == "cuda" && !reason.empty())
    GTEST_SKIP() << reason;
  if (c.two_gpus && cuda::look_at_device().devices < 2) GTEST_SKIP() << "there is one GPU";
  const std::string path = "tests/goldens/" + c.checkpoint;
  EngineConfig config;
  config.backend = c.backend;
  config.kv_dtype = c.kv_dtype;
  config.layout = parse_layout(c.layout);
  if (c.two_gpus) config.ffn_gpus = {1};
  config.context_tokens_max = c.checkpoint == "step3_vl" ? 768 : 256;
  config.sequences_max = 8;
  config.rows_per_step_max = 96;  // the longest prompt comes in chunks
  config.prefill_chunk = 40;
  config.checked = true;
  const Verdict verdict = verify(*Checkpoint::open(path), read_expectations(path), config);
  for (const PromptVerdict& prompt : verdict.prompts)
    for (const std::string& fault : prompt.faults) ADD_FAILURE() << prompt.name << ": " << fault;
  EXPECT_TRUE(verdict.passed());
}

std::string name_of(const testing::TestParamInfo<Case>& info) {
  std::string name =
      format("{}_{}_{}_{}{}", info.param.checkpoint, info.param.backend, tandem::name(info.param.kv_dtype),
             info.param.layout, info.param.two_gpus ? "_on_two_gpus" : "");
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, Golden, testing::ValuesIn(cases()), name_of);

Verdict verify_with(Activations activations, const Checkpoint& checkpoint, const Expectations& expectations,
                    const std::string& backend, const std::string& layout) {
  EngineConfig config;
  config.backend = backend;
  config.kv_dtype = DType::kF32;
  config.layout = parse_layout(layout);
  config.context_tokens_max = 256;
  config.checked = true;
  config.activations = activations;
  return verify(checkpoint, expectations, config);
}

TEST(GoldenFp8Activations, StayWithinTheRecordedLimit) {
  const std::string path = "tests/goldens/step3_text_fp8";
  const Expectations expectations = read_expectations(path, Activations::kFp8);
  ASSERT_EQ(expectations.prompts.size(), 3u);
  std::vector<std::pair<std::string, std::string>> runs = {{"reference", "local"}, {"cpu", "local"}, {"cpu", "2A2F"}};
  if (cuda::why_unusable(cuda::look_at_device()).empty())
    for (const char* layout : {"local", "1A1F", "2A1F"}) runs.emplace_back("cuda", layout);
  for (const auto& [backend, layout] : runs) {
    const Verdict verdict = verify_with(Activations::kFp8, *Checkpoint::open(path), expectations, backend, layout);
    EXPECT_EQ(verdict.activations, Activations::kFp8);
    std::int64_t routes = 0, different = 0;
    for (const PromptVerdict& prompt : verdict.prompts) {
      routes += prompt.routes;
      different += prompt.routes_different;
    }
    EXPECT_LE(different, routes / 20) << "of " << routes << " choices: only close ones may turn";
    for (const PromptVerdict& prompt : verdict.prompts)
      for (const std::string& fault : prompt.faults) ADD_FAILURE() << backend << ", " << prompt.name << ": " << fault;
    EXPECT_TRUE(verdict.passed());
  }
}

TEST(GoldenInt8Activations, StayNearTheRecordingsOfF32) {
  for (const char* file : {"llama-q8_0", "llama-q4_0", "llama-q4_1", "llama-q4_k_m"}) {
    const std::string path = format("tests/goldens/llama_gguf/{}.gguf", file);
    const Expectations expectations = read_expectations(path, Activations::kInt8);
    for (const auto& [backend, layout] : {std::pair{"reference", "local"}, {"cpu", "local"}, {"cpu", "2A2F"}}) {
      const Verdict verdict = verify_with(Activations::kInt8, *Checkpoint::open(path), expectations, backend, layout);
      EXPECT_EQ(verdict.activations, Activations::kInt8);
      for (const PromptVerdict& prompt : verdict.prompts) {
        EXPECT_GT(prompt.logits_rms, 1e-4) << file << ": nothing was rounded";
        for (const std::string& fault : prompt.faults)
          ADD_FAILURE() << file << ", " << backend << ", " << prompt.name << ": " << fault;
      }
    }
  }
}

TEST(Expectations, WithFp8ActivationsAreAskedForWhereThereAreNone) {
  try {
    read_expectations("tests/goldens/llama", Activations::kFp8);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(error.message().find("no recordings with FP8 activations"), std::string::npos);
  }
}

// The same weights under the names and metadata of GGUF's architectures.
class GgufCopy : public testing::TestWithParam<std::pair<const char*, GgufForm>> {};

TEST_P(GgufCopy, StaysWithinTheRecordedLimits) {
  const std::string path = std::string("tests/goldens/") + GetParam().first;
  const TemporaryFolder folder;
  const auto copy = Checkpoint::open(write_gguf_copy(folder, *Checkpoint::open(path), GetParam().second));
  for (const auto& [backend, layout] : {std::pair{"reference", "local"}, {"cpu", "local"}, {"cpu", "1A2F"}}) {
    const Verdict verdict = verify_with(Activations::kF32, *copy, read_expectations(path), backend, layout);
    for (const PromptVerdict& prompt : verdict.prompts)
      for (const std::string& fault : prompt.faults) ADD_FAILURE() << backend << ", " << prompt.name << ": " << fault;
    EXPECT_TRUE(verdict.passed());
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GgufCopy,
                         testing::Values(std::pair{"qwen3", GgufForm::kNew}, std::pair{"qwen3_moe", GgufForm::kNew},
                                         std::pair{"deepseek_v3", GgufForm::kOld},
                                         std::pair{"deepseek_v3", GgufForm::kNew}));

TEST(Expectations, NamesTheFileThatIsMissing) {
  try {
    read_expectations("tests/goldens");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_NE(error.message().find("expected.json"), std::string::npos);
  }
}

TEST(Expectations, WrongExpectationsFail) {
  const std::string path = "tests/goldens/llama";
  Expectations expectations = read_expectations(path);
  expectations.prompts.resize(2);
  expectations.prompts[0].logits[7] += 1;
  expectations.prompts[1].greedy_ids[3] ^= 1;
  EngineConfig config;
  config.kv_dtype = DType::kF32;
  config.context_tokens_max = 256;
  const Verdict verdict = verify(*Checkpoint::open(path), expectations, config);
  EXPECT_FALSE(verdict.passed());
  EXPECT_EQ(verdict.prompts[0].faults.size(), 1u);
  EXPECT_EQ(verdict.prompts[1].greedy_same, 3);
}

}  // namespace
}  // namespace tandem
