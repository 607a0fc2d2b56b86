// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// From a checkpoint to a model: what is refused before anything is read, what the parts measure, what a listener hears.
#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>

#include "base/format.h"
#include "model/model.h"
#include "ops/reference/reference_backend.h"
#include "tests/base/error_of.h"
#include "tests/checkpoint/retyped_gguf.h"
#include "tests/model/synthetic_checkpoint.h"

namespace tandem {
namespace {

using testing::HasSubstr;
using testing::Not;

ModelShare whole(const Checkpoint& checkpoint) {
  return {.attention = true, .ffn = true, .experts = ffn_share(0, 1, read_config(checkpoint).experts)};
}

// ---- refusals

TEST(LoadModel, everything_wrong_with_a_checkpoint_is_one_error) {
  SyntheticTensors tensors = step3_tensors(step3_config());
  remove_tensor(tensors, "model.layers.0.self_attn.wq.weight");
  remove_tensor(tensors, "model.norm.weight");
  tensors.push_back({"model.layers.3.extra.weight", {4}});
  tensor_named(tensors, "model.layers.1.moe.gate_proj.weight").shape = {6, 32, 48};
  tensor_named(tensors, "model.layers.2.input_layernorm.weight").dtype = DType::kI32;
  const SyntheticCheckpoint checkpoint(step3_config(), tensors);
  const auto backend = make_reference_backend();
  const Error load = error_of([&] { load_model(*checkpoint, whole(*checkpoint), *backend); });
  EXPECT_EQ(load.code(), ErrorCode::kInvalidData);
  EXPECT_THAT(load.message(), HasSubstr(checkpoint->path()));
  EXPECT_THAT(load.message(), HasSubstr("missing (2): "));
  EXPECT_THAT(load.message(), HasSubstr("model.layers.0.self_attn.wq.weight"));
  EXPECT_THAT(load.message(), HasSubstr("model.norm.weight"));
  EXPECT_THAT(load.message(), HasSubstr("unexpected (1): model.layers.3.extra.weight"));
  EXPECT_THAT(load.message(), HasSubstr("wrong shape (1): model.layers.1.moe.gate_proj.weight is [6, 32, 48], "
                                        "expected [6, 33, 48]"));
  EXPECT_THAT(load.message(), HasSubstr("wrong type (1): model.layers.2.input_layernorm.weight is i32, expected f32"));
  const Error measure = error_of([&] { measure_parts(*checkpoint); });
  EXPECT_EQ(measure.message(), load.message()) << "measuring checks like loading";
}

TEST(LoadModel, a_worker_of_one_half_checks_the_other_too) {
  SyntheticTensors tensors = llama_tensors(llama_config());
  remove_tensor(tensors, "model.layers.1.mlp.up_proj.weight");
  const SyntheticCheckpoint checkpoint(llama_config(), tensors);
  const auto backend = make_reference_backend();
  const Error error = error_of([&] { load_model(*checkpoint, {.attention = true, .ffn = false}, *backend); });
  EXPECT_THAT(error.message(), HasSubstr("missing (1): model.layers.1.mlp.up_proj.weight"));
}

TEST(LoadModel, types_that_are_not_read_are_listed_with_their_tensors) {
  const TemporaryFolder folder;
  const auto checkpoint = Checkpoint::open(retyped_gguf(folder, "tests/goldens/llama_gguf/llama-q4_0.gguf"));
  const auto backend = make_reference_backend();
  const Error error = error_of([&] { load_model(*checkpoint, whole(*checkpoint), *backend); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported) << "the file is sound";
  EXPECT_THAT(error.message(), HasSubstr("retyped.gguf"));
  int unread = 0;
  for (const TensorInfo& info : checkpoint->tensors()) {
    if (info.dtype) {
      EXPECT_THAT(error.message(), Not(HasSubstr(info.name)));
    } else {
      EXPECT_THAT(error.message(), HasSubstr(info.type_name + " " + info.name));
      ++unread;
    }
  }
  EXPECT_GT(unread, 0);
  EXPECT_THAT(error.message(), HasSubstr(format("unsupported type ({}): ", unread)));
}

// ---- sizes

struct MeasuredCase {
  const char* path;
  std::map<Part, std::int64_t> parameters;  // from the shapes of the architecture, by hand
};

const MeasuredCase kMeasured[] = {
    {"tests/goldens/llama",
     {{Part::kEmbedding, 512 * 128},
      {Part::kHead, 512 * 128},
      {Part::kAttention, 2 * (128 + 64 + 64 + 128) * 128},
      {Part::kNorm, 2 * 2 * 128 + 128},
      {Part::kDenseFfn, 2 * 3 * 256 * 128}}},
    {"tests/goldens/qwen3",
     {{Part::kEmbedding, 512 * 96},
      {Part::kAttention, 3 * (128 + 64 + 64 + 128) * 96},
      {Part::kNorm, 3 * (2 * 96 + 2 * 32) + 96},
      {Part::kDenseFfn, 3 * 3 * 192 * 96}}},
    {"tests/goldens/qwen3_moe",
     {{Part::kEmbedding, 512 * 128},
      {Part::kHead, 512 * 128},
      {Part::kAttention, 3 * (256 + 64 + 64 + 256) * 128},
      {Part::kNorm, 3 * (2 * 128 + 2 * 32) + 128},
      {Part::kRouter, 3 * 8 * 128},
      {Part::kExperts, 3 * 8 * 3 * 64 * 128}}},
    {"tests/goldens/step3_text_bf16",
     {{Part::kEmbedding, 512 * 128},
      {Part::kHead, 512 * 128},
      {Part::kAttention, 4 * ((96 + 64 + 64) * 128 + 96 + 512 * 96 + 128 * 512)},
      {Part::kNorm, 4 * (128 + 128) + 128},
      {Part::kRouter, 2 * 8 * 128},
      {Part::kExperts, 2 * 8 * 3 * 80 * 128},
      {Part::kSharedExpert, 2 * 3 * 64 * 128},
      {Part::kDenseFfn, 2 * 3 * 256 * 128}}},
    {"tests/goldens/step3_text_d256",
     {{Part::kEmbedding, 512 * 64},
      {Part::kHead, 512 * 64},
      {Part::kAttention, 3 * ((64 + 256 + 256) * 64 + 64 + 4096 * 64 + 64 * 4096)},
      {Part::kNorm, 3 * (64 + 64) + 64},
      {Part::kRouter, 8 * 64},
      {Part::kExperts, 8 * 3 * 80 * 64},
      {Part::kSharedExpert, 3 * 64 * 64},
      {Part::kDenseFfn, 2 * 3 * 256 * 64}}},
};

TEST(MeasureParts, parameters_and_bytes_are_those_of_the_shapes) {
  for (const MeasuredCase& c : kMeasured) {
    SCOPED_TRACE(c.path);
    const PartSizes parts = measure_parts(*Checkpoint::open(c.path));
    EXPECT_EQ(parts.size(), c.parameters.size());
    for (const auto& [part, size] : parts) {
      ASSERT_TRUE(c.parameters.contains(part)) << name(part);
      EXPECT_EQ(size.parameters, c.parameters.at(part)) << name(part);
      EXPECT_EQ(size.bytes, 2 * c.parameters.at(part)) << name(part) << ", bf16";
    }
  }
}

TEST(MeasureParts, quantised_weights_count_as_they_are_stored) {
  const auto parts = measure_parts(*Checkpoint::open("tests/goldens/llama_gguf/llama-q8_0.gguf"));
  const PartSize ffn = parts.at(Part::kDenseFfn);
  EXPECT_EQ(ffn.parameters, 2 * 3 * 256 * 256);
  EXPECT_EQ(ffn.bytes, ffn.parameters / 32 * 34);
  EXPECT_EQ(parts.at(Part::kNorm).bytes, 4 * parts.at(Part::kNorm).parameters) << "norms are f32";
}

TEST(MeasureParts, scales_take_room_and_are_no_parameters) {
  const auto parts = measure_parts(*Checkpoint::open("tests/goldens/step3_text_fp8"));
  const PartSize attention = parts.at(Part::kAttention);
  const std::int64_t matrices = 4 * (2 * 256 * 256 + 4 * 256 * 256), norms = 4 * 256;
  EXPECT_EQ(attention.parameters, matrices + norms);
  EXPECT_EQ(attention.bytes, matrices + 2 * norms + 4 * 4 * (4 + 2 + 2 + 8 + 8));
}

const char* const kCheckpoints[] = {"tests/goldens/step3_text_fp8",
                                    "tests/goldens/llama",
                                    "tests/goldens/qwen3_moe",
                                    "tests/goldens/step3_text_bf16",
                                    "tests/goldens/step3_text_d256",
                                    "tests/goldens/llama_gguf/llama-q8_0.gguf",
                                    "tests/goldens/llama_gguf/llama-q4_0.gguf",
                                    "tests/goldens/llama_gguf/llama-q4_k_m.gguf"};

TEST(MeasureShare, the_shares_of_all_workers_add_up_to_the_model) {
  for (const char* path : kCheckpoints) {
    SCOPED_TRACE(path);
    const auto checkpoint = Checkpoint::open(path);
    const std::int32_t experts = read_config(*checkpoint).experts;
    const std::int64_t total = total_bytes(measure_parts(*checkpoint));
    EXPECT_EQ(total_bytes(measure_share(*checkpoint, whole(*checkpoint))), total);
    for (std::int32_t workers = 1; workers <= 12; ++workers) {
      std::int64_t sum = total_bytes(measure_share(*checkpoint, {.attention = true, .ffn = false}));
      for (std::int32_t i = 0; i < workers; ++i)
        sum += total_bytes(
            measure_share(*checkpoint, {.attention = false, .ffn = true, .experts = ffn_share(i, workers, experts)}));
      EXPECT_EQ(sum, total) << workers << " FFN workers";
    }
    if (read_config(*checkpoint).block_fp8) continue;  // experts of one block
    for (const FfnSplit split : {FfnSplit{1, 2}, FfnSplit{2, 2}, FfnSplit{3, 2}}) {
      std::int64_t sum = total_bytes(measure_share(*checkpoint, {.attention = true, .ffn = false}));
      for (std::int32_t i = 0; i < split.workers(); ++i)
        sum += total_bytes(
            measure_share(*checkpoint, {.attention = false, .ffn = true, .experts = ffn_share(i, split, experts)}));
      EXPECT_EQ(sum, total) << split.experts << " groups, experts cut in two";
    }
  }
}

TEST(LoadModel, the_listener_hears_every_byte_of_the_share_once) {
  for (const char* path : kCheckpoints) {
    const auto checkpoint = Checkpoint::open(path);
    const std::int32_t experts = read_config(*checkpoint).experts;
    const auto backend = make_reference_backend();
    for (const ModelShare& share : {whole(*checkpoint), ModelShare{.attention = true, .ffn = false},
                                    ModelShare{.attention = false, .experts = ffn_share(1, 3, experts)},
                                    ModelShare{.attention = false, .experts = ffn_share(1, FfnSplit{1, 2}, experts)}}) {
      if (share.experts.cuts_experts() && read_config(*checkpoint).block_fp8) continue;  // experts of one block
      std::vector<std::int64_t> heard;
      load_model(*checkpoint, share, *backend, [&](std::int64_t bytes) { heard.push_back(bytes); });
      ASSERT_GT(heard.size(), 1u);
      EXPECT_EQ(std::accumulate(heard.begin(), heard.end(), std::int64_t{0}),
                total_bytes(measure_share(*checkpoint, share)))
          << path;
    }
  }
}

}  // namespace
}  // namespace tandem
