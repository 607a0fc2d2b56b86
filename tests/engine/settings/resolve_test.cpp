// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Settings left open are fitted, settings given are kept, and those that cannot be are refused by name.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/settings/machine.h"
#include "tests/base/error_of.h"

namespace tandem {
namespace {

constexpr std::int64_t kMiB = 1 << 20;

ModelConfig small_model() {
  ModelConfig model;
  model.layers = 4;
  model.kv_heads = 2;
  model.head_dim = 32;  // 1 KiB of KV per token in bf16
  model.hidden = 128;
  model.vocab = 512;
  model.context_tokens_max = 4096;
  model.routed.assign(4, false);
  return model;
}

TEST(Resolve, FillsEverythingThatIsOpen) {
  const EngineConfig c = resolve({}, small_model(), kMiB);
  EXPECT_EQ(c.threads, usable_cores());
  EXPECT_EQ(c.micro_batches, 1);  // local: nothing to overlap
  EXPECT_EQ(c.context_tokens_max, 4096);
  EXPECT_EQ(c.rows_per_step_max, 512);
  EXPECT_EQ(c.prefill_chunk, 256);
  EXPECT_GE(c.kv_tokens, 4096);
  EXPECT_LE(c.kv_tokens, 64 * 4096);
  EXPECT_EQ(c.kv_tokens % kBlockTokens, 0);

  EngineConfig apart;
  apart.layout = parse_layout("2A2F");
  EXPECT_EQ(resolve(apart, small_model(), kMiB).micro_batches, 3);
  EXPECT_GE(resolve(apart, small_model(), kMiB).threads, 4);

  ModelConfig long_model = small_model();
  long_model.context_tokens_max = 1 << 20;
  EXPECT_EQ(resolve({}, long_model, kMiB).context_tokens_max, 8192);
}

TEST(Resolve, Fp8ActivationsNeedFp8Weights) {
  EngineConfig given;
  given.activations = Activations::kFp8;
  ModelConfig model = small_model();
  const Error error = error_of([&] { resolve(given, model, kMiB); });
  EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(error.message().find("--activations"), std::string::npos) << error.message();
  model.block_fp8 = true;
  EXPECT_EQ(resolve(given, model, kMiB).activations, Activations::kFp8);
}

TEST(Resolve, Fp8ActivationsOnCudaCutNoFfn) {
  EngineConfig given;
  given.backend = "cuda";
  given.activations = Activations::kFp8;
  given.layout = parse_layout("2A2F");
  ModelConfig model = small_model();
  model.block_fp8 = true;
  const Error error = error_of([&] { resolve(given, model, kMiB); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  for (const char* part : {"--layout", "--activations", "cuda", "2A2F"})
    EXPECT_NE(error.message().find(part), std::string::npos) << error.message();
  for (const char* layout : {"local", "2A1F"}) {
    given.layout = parse_layout(layout);
    EXPECT_EQ(resolve(given, model, kMiB).activations, Activations::kFp8);
  }
}

TEST(Resolve, Int8ActivationsNeedQuantisedWeightsAndAProcessor) {
  EngineConfig given;
  given.activations = Activations::kInt8;
  ModelConfig model = small_model();
  const Error unquantised = error_of([&] { resolve(given, model, kMiB); });
  EXPECT_EQ(unquantised.code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(unquantised.message().find("(--activations)"), std::string::npos) << unquantised.message();
  model.block_integers = true;
  EXPECT_EQ(resolve(given, model, kMiB).activations, Activations::kInt8);
  given.backend = "cuda";
  const Error elsewhere = error_of([&] { resolve(given, model, kMiB); });
  EXPECT_EQ(elsewhere.code(), ErrorCode::kUnsupported);
  EXPECT_NE(elsewhere.message().find("--device"), std::string::npos) << elsewhere.message();
}

TEST(Resolve, GpusAreForCudaAndForWorkersThatThereAre) {
  EngineConfig given;
  given.attention_gpus = {1};
  EXPECT_EQ(error_of([&] { resolve(given, small_model(), kMiB); }).message(),
            "--gpu-a 1: device cpu runs on no GPU (--device)");
  given.backend = "cuda";
  given.ffn_gpus = {0, 1};
  given.layout = parse_layout("1A1F");
  const Error error = error_of([&] { resolve_limits(given, small_model()); });
  EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(error.message(), "--gpu-f 0,1: layout 1A1F has 1 FFN workers, GPUs are given for 2 (--layout)");
}

// Memory in which no attention worker keeps anything has room for weights, and decides nothing about KV.
TEST(Resolve, KvIsForTheMemoryThatKeepsIt) {
  if (available_memory_bytes() == 0) GTEST_SKIP() << "this machine does not tell how much memory is available";
  const std::int64_t nearly_all = available_memory_bytes() - 512 * kMiB;
  ASSERT_GT(nearly_all, 0);
  EngineConfig given;
  given.sequences_max = 1024;  // 4 GiB of KV if all of them have it
  const std::vector<MemoryUse> apart = {{.gpu = 0, .weight_bytes = kMiB, .attention_workers = 1},
                                        {.gpu = 1, .weight_bytes = nearly_all, .attention_workers = 0}};
  const std::vector<MemoryUse> together = {{.gpu = 0, .weight_bytes = nearly_all + kMiB, .attention_workers = 1}};
  const std::int64_t tokens = resolve(given, small_model(), apart).kv_tokens;
  EXPECT_GT(tokens, resolve(given, small_model(), together).kv_tokens);
  // The smallest of several decides.
  const std::vector<MemoryUse> both = {apart[0], together[0]};
  EXPECT_LT(resolve(given, small_model(), both).kv_tokens, tokens);
}

TEST(Resolve, KeepsWhatWasGiven) {
  EngineConfig given;
  given.threads = 3;
  given.micro_batches = 2;
  given.context_tokens_max = 100;
  given.sequences_max = 5;
  given.rows_per_step_max = 7;
  given.prefill_chunk = 6;
  given.kv_tokens = 130;
  const EngineConfig c = resolve(given, small_model(), kMiB);
  EXPECT_EQ(c.threads, 3);
  EXPECT_EQ(c.micro_batches, 2);
  EXPECT_EQ(c.context_tokens_max, 100);
  EXPECT_EQ(c.rows_per_step_max, 7);
  EXPECT_EQ(c.prefill_chunk, 6);
  EXPECT_EQ(c.kv_tokens, 192);  // whole blocks
}

struct Wrong {
  const char* flag;
  void (*set)(EngineConfig&);
  const char* value;
  const char* limit;
};

TEST(Resolve, NamesTheSettingTheValueAndTheLimit) {
  const Wrong wrongs[] = {
      {"--threads", [](EngineConfig& c) { c.threads = -1; }, "-1", "1024"},
      {"--micro-batches", [](EngineConfig& c) { c.micro_batches = 5; }, "5", "1 … 4"},
      {"--context-tokens-max", [](EngineConfig& c) { c.context_tokens_max = 5000; }, "5000", "1 … 4096"},
      {"--sequences-max", [](EngineConfig& c) { c.sequences_max = 0; }, "0", "1 … 4096"},
      {"--rows-per-step-max", [](EngineConfig& c) { c.rows_per_step_max = 10; }, "10", "64 … 65536"},
      {"--prefill-chunk", [](EngineConfig& c) { c.prefill_chunk = 600; }, "600", "1 … 512"},
      {"--queue-max", [](EngineConfig& c) { c.queue_max = -3; }, "-3", "1 … 1048576"},
      {"--resend-after-ms", [](EngineConfig& c) { c.resend_after_ms = 0; }, "0", "1 … 3600000"},
      {"--resends-max", [](EngineConfig& c) { c.resends_max = -1; }, "-1", "0 … 1000"},
      {"--kv-tokens", [](EngineConfig& c) { c.kv_tokens = -5; }, "-5", "1 … 1099511627776"},
  };
  for (const Wrong& wrong : wrongs) {
    EngineConfig config;
    wrong.set(config);
    const Error error = error_of([&] { resolve(config, small_model(), kMiB); });
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << wrong.flag;
    for (const char* part : {wrong.flag, wrong.value, wrong.limit})
      EXPECT_NE(error.message().find(part), std::string::npos) << error.message();
  }
}

TEST(Resolve, RefusesMoreMemoryThanThereIs) {
  if (available_memory_bytes() == 0) GTEST_SKIP() << "this machine does not tell how much memory is available";
  EngineConfig config;
  config.kv_tokens = std::int64_t{1} << 40;
  Error error = error_of([&] { resolve(config, small_model(), kMiB); });
  EXPECT_EQ(error.code(), ErrorCode::kOutOfResources);
  for (const char* part : {"1099511627776 tokens", "1073741824 MiB", "--kv-tokens"})
    EXPECT_NE(error.message().find(part), std::string::npos) << error.message();

  error = error_of([] { resolve({}, small_model(), std::int64_t{1} << 60); });
  EXPECT_EQ(error.code(), ErrorCode::kOutOfResources);
  EXPECT_NE(error.message().find("weights"), std::string::npos) << error.message();

  ModelConfig huge = small_model();  // 32 GiB of KV per token
  huge.layers = 4096;
  huge.kv_heads = 4096;
  huge.head_dim = 512;
  error = error_of([&] { resolve({}, huge, kMiB); });
  EXPECT_EQ(error.code(), ErrorCode::kOutOfResources);
  for (const char* part : {"4096 tokens", "--context-tokens-max"})
    EXPECT_NE(error.message().find(part), std::string::npos) << error.message();
}

TEST(Resolve, ReferenceDoesNotSumExpertsInFp8ByParts) {
  ModelConfig routed = small_model();
  routed.experts = 16;
  routed.block_fp8 = true;
  EngineConfig config;
  config.layout = parse_layout("1A1x2F");
  config.activations = Activations::kFp8;
  EXPECT_EQ(resolve(config, routed, kMiB).layout.ffn_width, 2);
  config.backend = "reference";
  const Error error = error_of([&] { resolve(config, routed, kMiB); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_NE(error.message().find("layout 1A1x2F cuts it"), std::string::npos) << error.message();
}

TEST(Resolve, ADenseModelHasWorkForEightFfnWorkers) {
  EngineConfig config;
  config.layout = parse_layout("1A9F");
  const Error error = error_of([&] { resolve(config, small_model(), kMiB); });
  EXPECT_NE(error.message().find("1A9F"), std::string::npos) << error.message();
  ModelConfig routed = small_model();
  routed.experts = 16;
  EXPECT_EQ(resolve(config, routed, kMiB).layout.ffn_workers, 9);
}

}  // namespace
}  // namespace tandem
