// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What is counted, not how fast it was.
#include "engine/speed.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"

namespace tandem {
namespace {

EngineConfig small_config() {
  EngineConfig config;
  config.context_tokens_max = 128;
  config.sequences_max = 4;
  return config;
}

TEST(Speed, CountsTokensAndWork) {
  const auto checkpoint = Checkpoint::open("tests/goldens/llama");
  WorkMeter meter;
  EngineConfig config = small_config();
  meter.connect(config);
  const auto engine = Engine::start(*checkpoint, config);
  const Prompts prompts = random_prompts(engine->model(), 3, 20, 1);

  const Speed prefill = measure_prefill(*engine, prompts, &meter);
  EXPECT_EQ(prefill.tokens, 60);
  EXPECT_GT(prefill.seconds, 0);
  EXPECT_NEAR(prefill.tokens_per_second() * prefill.seconds, 60, 1e-6);

  const Speed decode = measure_decode(*engine, prompts, 16, &meter);
  // At most all answers; less what had come when the last of them began.
  EXPECT_LE(decode.tokens, 48);
  EXPECT_GT(decode.tokens, 0);
  // Each token costs two operations for every weight that it meets, and every weight is read once a step.
  const auto weights = static_cast<double>(checkpoint->tensor_bytes()) / 2;  // bf16
  EXPECT_GT(static_cast<double>(prefill.work.flops), 0.5 * 2 * weights * 20);
  EXPECT_LT(static_cast<double>(prefill.work.flops), 10 * 2 * weights * 60);
  EXPECT_GT(decode.work.bytes_read, 0);
}

TEST(Speed, WithoutAMeterThereIsNoWork) {
  const auto checkpoint = Checkpoint::open("tests/goldens/llama");
  const auto engine = Engine::start(*checkpoint, small_config());
  EXPECT_EQ(measure_prefill(*engine, random_prompts(engine->model(), 1, 4, 1)).work.flops, 0);
}

TEST(Speed, ARequestThatFailsIsAnError) {
  const auto checkpoint = Checkpoint::open("tests/goldens/llama");
  const auto engine = Engine::start(*checkpoint, small_config());
  try {
    measure_prefill(*engine, random_prompts(engine->model(), 1, 500, 1));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(error.message().find("--context-tokens-max"), std::string::npos) << error.message();
  }
}

TEST(RandomPrompts, AreTheSameForTheSameSeedAndInTheVocabulary) {
  ModelConfig model;
  model.vocab = 10;
  const Prompts prompts = random_prompts(model, 4, 100, 7);
  EXPECT_EQ(prompts, random_prompts(model, 4, 100, 7));
  EXPECT_NE(prompts, random_prompts(model, 4, 100, 8));
  EXPECT_NE(prompts[0], prompts[1]);
  std::set<std::int32_t> ids;
  for (const auto& prompt : prompts) ids.insert(prompt.begin(), prompt.end());
  EXPECT_EQ(*ids.begin(), 0);
  EXPECT_EQ(*ids.rbegin(), 9);
}

}  // namespace
}  // namespace tandem
