// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the metadata and tensors of a GGUF file say about a model.
#include <gmock/gmock.h>

#include <limits>

#include "model/config.h"
#include "tests/base/error_of.h"
#include "tests/model/synthetic_checkpoint.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Json metadata() {
  return Json::parse(R"({"general.architecture": "llama", "llama.block_count": 2, "llama.embedding_length": 32,
    "llama.context_length": 256, "llama.attention.layer_norm_rms_epsilon": 0.5, "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2, "llama.feed_forward_length": 64, "tokenizer.ggml.eos_token_id": 3})");
}

GgufTensor embedding() {
  return {"token_embd.weight", {10, 32}, std::vector<float>(320)};
}

ModelConfig read(const Json& metadata, const std::vector<GgufTensor>& tensors) {
  const TemporaryFolder folder;
  return read_config(*Checkpoint::open(write_gguf(folder, metadata, tensors)));
}

ModelConfig read_patched(const char* patch) {
  Json changed = metadata();
  changed.merge_patch(Json::parse(patch));
  return read(changed, {embedding()});
}

TEST(GgufConfig, metadata_and_tensors_give_the_sizes) {
  const ModelConfig c = read(metadata(), {embedding()});
  EXPECT_EQ(c.architecture, "llama");
  EXPECT_EQ(c.layers, 2);
  EXPECT_EQ(c.hidden, 32);
  EXPECT_EQ(c.vocab, 10) << "rows of the embedding";
  EXPECT_EQ(c.context_tokens_max, 256);
  EXPECT_EQ(c.norm_eps, 0.5f);
  EXPECT_EQ(c.heads, 4);
  EXPECT_EQ(c.kv_heads, 2);
  EXPECT_EQ(c.head_dim, 8);
  EXPECT_EQ(c.ffn_width, 64);
  EXPECT_EQ(c.rope.theta, 10000);
  EXPECT_EQ(c.rope.dim, 8);
  EXPECT_TRUE(c.rope.divisors.empty());
  EXPECT_TRUE(c.tied_head) << "no output.weight";
  EXPECT_THAT(c.eos_ids, ElementsAre(3));
  EXPECT_THAT(c.routed, ElementsAre(false, false));
}

TEST(GgufConfig, a_head_of_its_own_is_seen_by_its_tensor) {
  EXPECT_FALSE(read(metadata(), {embedding(), {"output.weight", {10, 32}, std::vector<float>(320)}}).tied_head);
}

TEST(GgufConfig, what_missing_and_explicit_keys_mean) {
  EXPECT_EQ(read_patched(R"({"llama.attention.head_count_kv": null})").kv_heads, 4);
  EXPECT_EQ(read_patched(R"({"llama.attention.key_length": 16})").head_dim, 16);
  EXPECT_EQ(read_patched(R"({"llama.rope.freq_base": 500000.0})").rope.theta, 500000);
  EXPECT_EQ(read_patched(R"({"llama.rope.dimension_count": 8, "llama.rope.scaling.type": "none"})").rope.dim, 8);
  EXPECT_EQ(read_patched(R"({"llama.expert_count": 0})").experts, 0);
}

TEST(GgufConfig, rope_freqs_divide_the_frequencies) {
  const ModelConfig c = read(metadata(), {embedding(), {"rope_freqs.weight", {4}, {1, 2, 4, 8}}});
  EXPECT_THAT(c.rope.divisors, ElementsAre(1, 2, 4, 8));
}

struct Refusal {
  const char* patch;
  ErrorCode code;
  const char* message;
};

constexpr Refusal kRefusals[] = {
    {R"({"general.architecture": "qwen2"})", ErrorCode::kUnsupported,
     "general.architecture is \"qwen2\", supported: deepseek2, llama, qwen3, qwen3moe"},
    {R"({"general.architecture": null})", ErrorCode::kUnsupported, "general.architecture is missing"},
    {R"({"llama.expert_count": 8})", ErrorCode::kUnsupported, "llama.expert_count is 8, supported: 0"},
    {R"({"llama.rope.scaling.type": "yarn"})", ErrorCode::kUnsupported,
     "llama.rope.scaling.type is \"yarn\", supported: none"},
    {R"({"llama.rope.dimension_count": 4})", ErrorCode::kUnsupported, "llama.rope.dimension_count is 4, supported: 8"},
    {R"({"llama.attention.value_length": 16})", ErrorCode::kUnsupported,
     "llama.attention.value_length is 16, supported: 8"},
    {R"({"llama.block_count": null})", ErrorCode::kInvalidData, "llama.block_count is missing"},
    {R"({"llama.context_length": 0})", ErrorCode::kInvalidData, "llama.context_length is 0, expected 1 … 1073741824"},
    {R"({"llama.embedding_length": 32.5})", ErrorCode::kInvalidData, "llama.embedding_length is 32.5"},
    {R"({"llama.attention.layer_norm_rms_epsilon": null})", ErrorCode::kInvalidData,
     "llama.attention.layer_norm_rms_epsilon is missing"},
    {R"({"llama.attention.head_count_kv": 3})", ErrorCode::kInvalidData,
     "llama.attention.head_count_kv is 3, expected a divisor of 4 heads"},
    {R"({"llama.attention.head_count": 64, "llama.attention.head_count_kv": 64})", ErrorCode::kInvalidData,
     "llama.attention.head_count is 64, expected a divisor of llama.embedding_length 32"},
    {R"({"llama.attention.head_count": 32, "llama.attention.head_count_kv": 32})", ErrorCode::kInvalidData,
     "llama.attention.key_length is missing, expected an even number"},
    {R"({"llama.attention.key_length": 9})", ErrorCode::kInvalidData, "llama.attention.key_length is 9"},
    {R"({"llama.attention.key_length": 2097152})", ErrorCode::kInvalidData,
     "llama.attention.key_length is 2097152, expected 2 … 1048576"},
    {R"({"llama.feed_forward_length": "64"})", ErrorCode::kInvalidData, "llama.feed_forward_length is \"64\""},
    {R"({"tokenizer.ggml.eos_token_id": 10})", ErrorCode::kInvalidData,
     "tokenizer.ggml.eos_token_id is 10, expected token ids in 0 … 9"},
};

TEST(GgufConfig, values_that_cannot_be_honoured_are_refused_by_name) {
  for (const Refusal& refusal : kRefusals) {
    SCOPED_TRACE(refusal.patch);
    const Error error = error_of([&] { read_patched(refusal.patch); });
    EXPECT_EQ(error.code(), refusal.code);
    EXPECT_THAT(error.message(), HasSubstr(std::string("model.gguf: ") + refusal.message));
  }
}

// The keys of another architecture, and what it adds.
ModelConfig read_renamed(const char* architecture, const char* added) {
  const Json base = metadata();
  Json renamed = Json::parse(added);
  for (const auto& [key, value] : base.items())
    renamed[key.starts_with("llama.") ? architecture + key.substr(5) : key] = value;
  renamed["general.architecture"] = architecture;
  return read(renamed, {embedding()});
}

TEST(GgufConfig, qwen3_has_the_same_keys_under_its_name) {
  const ModelConfig c = read_renamed("qwen3", R"({"qwen3.attention.key_length": 16})");
  EXPECT_EQ(c.architecture, "qwen3");
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_THAT(c.routed, ElementsAre(false, false));
}

TEST(GgufConfig, qwen3moe_has_experts_in_every_layer) {
  const char* added = R"({"qwen3moe.expert_count": 6, "qwen3moe.expert_used_count": 2,
    "qwen3moe.expert_feed_forward_length": 24})";
  const ModelConfig c = read_renamed("qwen3moe", added);
  EXPECT_EQ(c.architecture, "qwen3_moe");
  EXPECT_THAT(c.routed, ElementsAre(true, true));
  EXPECT_EQ(c.experts, 6);
  EXPECT_EQ(c.experts_per_token, 2);
  EXPECT_EQ(c.expert_width, 24);
  EXPECT_EQ(c.shared_width, 0);
  EXPECT_TRUE(c.renormalise);
  const Error error = error_of([&] { read_renamed("qwen3moe", "{}"); });
  EXPECT_THAT(error.message(), HasSubstr("qwen3moe.expert_count is missing"));
}

TEST(GgufConfig, an_embedding_that_is_missing_or_has_no_rows_is_refused) {
  const Error missing = error_of([] { read(metadata(), {{"other.weight", {1}, {0}}}); });
  EXPECT_EQ(missing.code(), ErrorCode::kInvalidData);
  EXPECT_THAT(missing.message(), HasSubstr("tensor token_embd.weight is missing"));
  const Error empty = error_of([] { read(metadata(), {{"token_embd.weight", {0, 32}, {}}}); });
  EXPECT_EQ(empty.code(), ErrorCode::kInvalidData);
  EXPECT_THAT(empty.message(), HasSubstr("token_embd.weight has 0 rows"));
}

TEST(GgufConfig, rope_freqs_of_another_shape_or_without_sense_are_refused) {
  const float infinity = std::numeric_limits<float>::infinity();
  const Error shape = error_of([] { read(metadata(), {embedding(), {"rope_freqs.weight", {3}, {1, 2, 4}}}); });
  EXPECT_EQ(shape.code(), ErrorCode::kInvalidData);
  EXPECT_THAT(shape.message(), HasSubstr("rope_freqs.weight is F32 [3], expected f32 [4]"));
  const Error zero = error_of([] { read(metadata(), {embedding(), {"rope_freqs.weight", {4}, {1, 0, 4, 8}}}); });
  EXPECT_THAT(zero.message(), HasSubstr("rope_freqs.weight holds 0, expected positive numbers"));
  const Error endless =
      error_of([&] { read(metadata(), {embedding(), {"rope_freqs.weight", {4}, {1, 2, infinity, 8}}}); });
  EXPECT_THAT(endless.message(), HasSubstr("rope_freqs.weight holds inf"));
}

}  // namespace
}  // namespace tandem
