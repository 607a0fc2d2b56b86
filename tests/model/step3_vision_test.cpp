// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The vision tower against recordings of an independent implementation: every step, then whole pictures. And what the
// published configuration says that the published code's defaults do not.
#include "model/step3_vision.h"

#include <gmock/gmock.h>

#include <cmath>

#include "image/pixels.h"
#include "ops/cpu/cpu_backend.h"
#include "ops/cuda/cuda_backend.h"
#include "ops/cuda/device.h"
#include "ops/reference/reference_backend.h"
#include "tests/base/error_of.h"
#include "tests/image/recording.h"
#include "tests/model/synthetic_checkpoint.h"

namespace tandem {
namespace {

using testing::HasSubstr;

constexpr const char* kFolder = "tests/goldens/step3_vl";

// A tower on a backend, and memory for it to work in.
struct Eyes {
  explicit Eyes(std::unique_ptr<Backend> b)
      : backend(std::move(b)),
        checkpoint(Checkpoint::open(kFolder)),
        vision(load_vision(*checkpoint, *backend)),
        arena(*backend, vision->scratch_bytes() + memory_bytes()) {}

  Workspace workspace() { return {*backend, arena}; }
  // A tensor on the backend that has these values, and back.
  Tensor put(const std::vector<float>& values, std::int64_t columns) {
    const Tensor t = arena.f32(static_cast<std::int64_t>(values.size()) / columns, columns);
    backend->copy(t.data, values.data(), values.size() * sizeof(float));
    backend->synchronise();
    return t;
  }
  std::vector<float> values_of(const Tensor& t) {
    std::vector<float> values(static_cast<std::size_t>(t.shape.elements()));
    backend->copy(values.data(), t.data, values.size() * sizeof(float));
    backend->synchronise();
    return values;
  }
  // Of the tensors that tests hold across calls.
  static std::size_t memory_bytes() { return 16u << 20; }

  std::unique_ptr<Backend> backend;
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Step3Vision> vision;
  Arena arena;
};

std::unique_ptr<Backend> make_backend(const std::string& name) {
  if (name == "cuda") return make_cuda_backend();
  return name == "reference" ? make_reference_backend() : make_cpu_backend({.threads = 2});
}

// p(channel, y, x) = ((31 channel + 17y + 7x) mod 256) / 128 - 1
std::vector<float> formula_pixels(std::int32_t side) {
  std::vector<float> pixels;
  for (std::int32_t y = 0; y < side; ++y)
    for (std::int32_t x = 0; x < side; ++x)
      for (std::int32_t c = 0; c < 3; ++c)
        pixels.push_back(static_cast<float>((31 * c + 17 * y + 7 * x) % 256) / 128.0f - 1.0f);
  return pixels;
}

// Largest difference of rows first, first + step, … from the recorded ones.
double difference(const std::vector<float>& rows, std::size_t columns, std::size_t step,
                  const std::vector<float>& recorded) {
  EXPECT_EQ((rows.size() / columns + step - 1) / step * columns, recorded.size());
  double largest = 0;
  for (std::size_t i = 0; i < recorded.size(); ++i) {
    const double d = std::abs(static_cast<double>(rows.at(i / columns * step * columns + i % columns)) - recorded[i]);
    if (!(d <= largest)) largest = d;  // NaN stays
  }
  return largest;
}

class Step3VisionTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (const std::string reason = cuda::why_unusable(cuda::look_at_device()); GetParam() == "cuda" && !reason.empty())
      GTEST_SKIP() << reason;
  }
};

TEST_P(Step3VisionTest, EachStepAgreesWithTheRecording) {
  Eyes eyes(make_backend(GetParam()));
  const VisionRecording recording;
  const Workspace w = eyes.workspace();
  for (const std::int32_t side : {504, 728}) {
    SCOPED_TRACE(side);
    Arena::Scope scope(eyes.arena);
    const std::string name = "tower" + std::to_string(side) + ".";
    const std::int64_t rows = eyes.vision->stream_rows(side);
    const auto hidden = static_cast<std::size_t>(eyes.vision->config().hidden);
    const Tensor pixels = eyes.put(formula_pixels(side), 3);
    const Tensor stream = eyes.arena.f32(rows, eyes.vision->config().hidden);
    const Tensor out = eyes.arena.f32(eyes.vision->rows_of(side), eyes.vision->hidden());
    eyes.vision->embed(w, pixels, stream);
    EXPECT_LE(difference(eyes.values_of(stream), hidden, 16, recording.values<float>(name + "embedded_every16")), 2e-5);
    eyes.vision->tower(w, stream);
    const Tensor features = stream.slice_rows(Step3Vision::kClassRows, rows - Step3Vision::kClassRows);
    EXPECT_LE(difference(eyes.values_of(features), hidden, 8, recording.values<float>(name + "features_every8")), 1e-4);
    eyes.vision->project(w, stream, out);
    EXPECT_LE(difference(eyes.values_of(out), static_cast<std::size_t>(out.shape[1]), 1,
                         recording.values<float>(name + "projected")),
              1e-4);
  }
}

TEST_P(Step3VisionTest, WholePicturesGiveTheRecordedRows) {
  if (GetParam() == "reference") GTEST_SKIP() << "is slow, and shown step by step";
  Eyes eyes(make_backend(GetParam()));
  const VisionRecording recording;
  const Workspace w = eyes.workspace();
  const std::vector<PictureSize> sizes = recording.picture_sizes();
  for (std::size_t i = 0; i < 3; ++i) {
    const PictureViews views(formula_picture(sizes[i]));
    const std::vector<float> recorded = recording.values<float>("image" + std::to_string(i) + ".visual_rows");
    // Bytes that PIL rounds the other way are the greater part where the picture was resized before its crops were cut.
    const double tolerance = views.plan().crops() == 0 ? 1e-4 : 0.05;
    std::int64_t at = 0;
    for (std::int32_t v = 0; v <= views.plan().crops(); ++v) {
      Arena::Scope scope(eyes.arena);
      const View view = v < views.plan().crops() ? views.crop(v) : views.whole();
      const std::int64_t rows = eyes.vision->rows_of(view.side), columns = eyes.vision->hidden();
      const Tensor out = eyes.arena.f32(rows, columns);
      eyes.vision->encode(w, eyes.put(view.rgb, 3), out);
      ASSERT_LE((at + rows) * columns, static_cast<std::int64_t>(recorded.size()));
      const std::vector<float> part(recorded.begin() + at * columns, recorded.begin() + (at + rows) * columns);
      EXPECT_LE(difference(eyes.values_of(out), static_cast<std::size_t>(columns), 1, part),
                v < views.plan().crops() ? tolerance : 1e-4)
          << "picture " << i << ", " << v;
      at += rows;
    }
    EXPECT_EQ(at * eyes.vision->hidden(), static_cast<std::int64_t>(recorded.size()));
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, Step3VisionTest, testing::Values("reference", "cpu", "cuda"),
                         [](const auto& info) { return info.param; });

TEST(Step3Vision, PositionsAreResizedAsRecorded) {
  const auto checkpoint = Checkpoint::open(kFolder);
  const auto backend = make_reference_backend();
  WeightReader reader(*checkpoint, *backend, {});
  const Buffer table = reader.values(Part::kVision, "vision_model.embeddings.position_embedding.weight", {2705, 48});
  const auto* rows = static_cast<const float*>(table.data());
  std::vector<float> resized = resize_table(rows + 48, 52, 36, 48);
  resized.insert(resized.begin(), rows, rows + 48);
  const std::vector<float> recorded = VisionRecording().values<float>("tower504.position_rows_every4");
  EXPECT_LE(difference(resized, 48, 4, recorded), 1e-5);
}

TEST(Step3Vision, ATableOfItsOwnSizeIsNotTouched) {
  const std::vector<float> table{1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(resize_table(table.data(), 2, 2, 2), table);
}

// ---- configuration

Json official_config() {
  Json config = Json::parse(read_test_file(std::string(kFolder) + "/config.json"));
  return config;
}

VisionConfig vision_of(const Json& config) {
  const SyntheticCheckpoint checkpoint(config, {});
  return *read_config(*checkpoint).vision;
}

TEST(Step3VisionConfig, DefaultsAreThoseOfThePublishedWeights) {
  Json config = official_config();
  config["vision_config"] = {{"hidden_size", 1792}};
  const VisionConfig v = vision_of(config);
  EXPECT_EQ(v.layers, 63);
  EXPECT_EQ(v.heads, 16);
  EXPECT_EQ(v.mlp_width, 15360);  // the published code's default is 3072
  EXPECT_EQ(v.output_hidden, 4096);
  EXPECT_EQ(v.grid(), 52);
}

TEST(Step3VisionConfig, TheNormsEpsilonIsNotTheFilesOne) {
  Json config = official_config();
  config["vision_config"]["layer_norm_eps"] = 1e-5;
  EXPECT_EQ(vision_of(config).norm_eps, 1e-6f);
}

TEST(Step3VisionConfig, AMissingStrideIsOneWhichIsRefused) {
  Json config = official_config();
  config.erase("understand_projector_stride");
  EXPECT_THAT(error_of([&] { vision_of(config); }).message(), HasSubstr("understand_projector_stride is missing"));
}

TEST(Step3VisionConfig, AMissingProjectorBiasIsABias) {
  Json config = official_config();
  EXPECT_FALSE(vision_of(config).projector_bias);
  config.erase("projector_bias");
  EXPECT_TRUE(vision_of(config).projector_bias);
}

TEST(Step3VisionConfig, WhatTheTowerCannotDoIsRefusedByName) {
  const auto refusal = [](const char* patch) {
    Json config = official_config();
    config.merge_patch(Json::parse(patch));
    return error_of([&] { vision_of(config); }).message();
  };
  EXPECT_THAT(refusal(R"({"vision_config": {"hidden_act": "gelu"}})"), HasSubstr("hidden_act"));
  EXPECT_THAT(refusal(R"({"vision_config": {"num_channels": 1}})"), HasSubstr("num_channels"));
  EXPECT_THAT(refusal(R"({"vision_config": {"num_attention_heads": 5}})"), HasSubstr("num_attention_heads"));
  EXPECT_THAT(refusal(R"({"vision_config": {"patch_size": 16}})"), HasSubstr("patch_size"));
  EXPECT_THAT(refusal(R"({"image_token_len": 168})"), HasSubstr("image_token_len is 168, expected 169"));
  EXPECT_THAT(refusal(R"({"patch_token_len": 80})"), HasSubstr("patch_token_len is 80, expected 81"));
  EXPECT_THAT(refusal(R"({"text_config": null})"), HasSubstr("text_config"));
}

TEST(Step3VisionConfig, PartsAreCounted) {
  const auto checkpoint = Checkpoint::open(kFolder);
  const PartSizes parts = measure_parts(*checkpoint);
  // Per layer: qkv, out, two norms, fc1, fc2; then embeddings.
  const std::int64_t h = 48, m = 120, o = 64;
  const std::int64_t layer = 3 * h * h + 3 * h + h * h + h + 4 * h + m * h + m + h * m + h;
  EXPECT_EQ(parts.at(Part::kVision).parameters, 2 * layer + h + h * 3 * 14 * 14 + h + 2705 * h);
  EXPECT_EQ(parts.at(Part::kProjector).parameters, 4 * o * h + o + 9 * 2 * o * o + 2 * o + 128 * 2 * o);
}

TEST(Step3VisionConfig, TextAloneHasNoEyes) {
  const auto checkpoint = Checkpoint::open("tests/goldens/step3_text_bf16");
  const auto backend = make_reference_backend();
  EXPECT_THAT(error_of([&] { load_vision(*checkpoint, *backend); }).message(), HasSubstr("sees no pictures"));
}

}  // namespace
}  // namespace tandem
