// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Nothing depends on the sizes of the recorded checkpoints: models of every family with odd sizes, drawn from a seed,
// give the same routes and, within float32 rounding, the same logits on the reference and the cpu backend, and the same
// bits in every layout. Right numbers: golden_test.cpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/format.h"
#include "base/rng.h"
#include "model/step3_vision.h"
#include "ops/cpu/cpu_backend.h"
#include "ops/cuda/cuda_backend.h"
#include "ops/cuda/device.h"
#include "ops/reference/reference_backend.h"
#include "tests/engine/recording_engine.h"
#include "tests/verify/gguf_copy.h"
#include "tests/verify/odd_models.h"

namespace tandem {
namespace {

constexpr int kSeeds = 4;

struct Case {
  OddFamily family;
  int seed;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (int family = 0; family <= static_cast<int>(OddFamily::kStep3p5Fp8); ++family)
    for (int seed = 0; seed < kSeeds; ++seed) all.push_back({static_cast<OddFamily>(family), seed});
  return all;
}

// Prompts that end before, on and after the border of a page, and cross the border with what is drawn.
std::vector<Request> requests_for(const ModelConfig& model, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<Request> requests;
  const std::int64_t lengths[][3] = {{1, 63, 128}, {64, 127, 2}, {65, 129, 62}, {64, 126, 1}};
  for (const std::int64_t tokens : lengths[seed % std::size(lengths)]) {
    Request request;
    request.new_tokens_max = 3;
    request.prompt_logits = true;
    for (std::int64_t i = 0; i < tokens; ++i)
      request.prompt.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(model.vocab))));
    if (model.vision && tokens > 60) {
      auto rows = std::make_shared<EmbeddingRows>();
      rows->hidden = model.hidden;
      for (std::int64_t i = 0; i < 9 * model.hidden; ++i)  // the first column as in forced embeddings
        rows->values.push_back(i % model.hidden == 0 ? 16 : rng.normal());
      rows->digest[0] = static_cast<std::uint8_t>(tokens);
      request.embedded = {{tokens - 61, 9, 0, rows}};
      std::fill_n(request.prompt.begin() + tokens - 61, 9, model.vision->image_token);
    }
    requests.push_back(request);
  }
  return requests;
}

EngineConfig config_of(const std::string& layout, std::int32_t micro_batches) {
  EngineConfig config = small_engine(layout, micro_batches);
  config.kv_dtype = DType::kF32;
  config.checked = true;
  config.vision = false;  // requests bring their rows
  return config;
}

// The same tokens and experts; logits within the limit that recordings have, which is for logits of about one.
void expect_near(const Recorded& expected, const Recorded& found) {
  ASSERT_EQ(found.end.finish, FinishReason::kLength) << (found.end.status ? "" : found.end.status.error().message());
  EXPECT_EQ(found.tokens, expected.tokens);
  ASSERT_EQ(found.logits.size(), expected.logits.size());
  double size = 1, largest = 0;
  for (const auto& [position, row] : expected.logits) {
    const std::vector<float>& other = found.logits.at(position);
    for (std::size_t i = 0; i < row.size(); ++i) {
      size = std::max(size, std::abs(static_cast<double>(row[i])));
      const double error = std::abs(static_cast<double>(row[i]) - other.at(i));
      if (!(error <= largest)) largest = error;  // NaN stays
    }
  }
  EXPECT_LE(largest, 1e-4 * size);
  ASSERT_EQ(found.routes.size(), expected.routes.size());
  for (const auto& [place, route] : expected.routes) {
    const Route& other = found.routes.at(place);
    ASSERT_EQ(other.ids, route.ids) << "layer " << place.first << ", position " << place.second;
    for (std::size_t i = 0; i < route.ids.size(); ++i)  // which a factor may have made larger than one
      EXPECT_NEAR(other.weights[i], route.weights[i], 1e-5 * std::max(1.0f, route.weights[i]));
  }
}

// Whoever is meant to be chosen by all rows is, and whoever by none is not.
void expect_forced_choices(const OddModel& model, const std::vector<Recorded>& all) {
  for (const Recorded& one : all)
    for (const auto& [place, route] : one.routes) {
      const auto chosen = [&](std::int32_t expert) { return std::ranges::count(route.ids, expert) == 1; };
      ASSERT_TRUE(model.crowded < 0 || chosen(model.crowded)) << "position " << place.second;
      ASSERT_FALSE(model.lonely >= 0 && chosen(model.lonely)) << "position " << place.second;
    }
}

class OddSizes : public testing::TestWithParam<Case> {};

std::string name_of(const testing::TestParamInfo<Case>& info) {
  return format("{}_{}", name(info.param.family), info.param.seed);
}
INSTANTIATE_TEST_SUITE_P(All, OddSizes, testing::ValuesIn(cases()), name_of);

TEST_P(OddSizes, AgreeBetweenBackendsAndLayouts) {
  const auto [family, seed] = GetParam();
  const std::unique_ptr<OddModel> model = make_odd_model(family, static_cast<std::uint64_t>(seed));
  SCOPED_TRACE(model->sizes);
  const Checkpoint& checkpoint = *model->checkpoint;
  const std::vector<Request> requests = requests_for(read_config(checkpoint), static_cast<std::uint64_t>(seed));
  EngineConfig reference = config_of("local", 1);
  reference.backend = "reference";
  const std::vector<Recorded> wanted = RecordingEngine(checkpoint, reference).run(requests);
  std::vector<Recorded> expected;  // of the best instruction set; over the seeds the others have their turn
  const std::vector<CpuVariant> all = cpu_variants();
  const CpuVariant& other = all[static_cast<std::size_t>(seed) % all.size()];
  for (const std::string& variant : {std::string("auto"), other.name}) {
    if (variant == other.name && !other.available()) continue;
    EngineConfig config = config_of("local", 1);
    config.variant = variant;
    const std::vector<Recorded> found = RecordingEngine(checkpoint, config).run(requests);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      SCOPED_TRACE(format("request {}, {}", i, variant));
      expect_near(wanted[i], found[i]);
    }
    if (expected.empty()) expected = found;
  }
  expect_forced_choices(*model, expected);
  if (HasFailure()) return;
  int turn = seed;  // over the seeds every layout meets every number of micro-batches
  const ModelConfig sizes = read_config(checkpoint);
  const std::int64_t blocks = sizes.experts == 0 ? 8 : (sizes.expert_width - 1) / (sizes.block_fp8 ? 128 : 32) + 1;
  for (const char* layout : {"local", "1A1F", "2A1F", "1A2F", "2A2F", "1A5F", "1A2x2F", "2A1x4F", "1A1x8F"}) {
    if (parse_layout(layout).ffn_width > blocks) continue;
    const std::int32_t micro_batches = 1 + ++turn % kMicroBatchesMax;
    SCOPED_TRACE(format("{}, {} micro-batches", layout, micro_batches));
    const std::vector<Recorded> found = RecordingEngine(checkpoint, config_of(layout, micro_batches)).run(requests);
    for (std::size_t i = 0; i < requests.size(); ++i) expect_same_bits(expected[i], found[i]);
    if (HasFailure()) return;
  }
}

// Groups of 128 columns that the sizes do not fill.
TEST(OddSizesFp8Activations, HaveTheSameBitsInEveryLayout) {
  for (const OddFamily family : {OddFamily::kStep3Fp8, OddFamily::kDeepseekV3Fp8, OddFamily::kStep3p5Fp8}) {
    const std::unique_ptr<OddModel> model = make_odd_model(family, 1);
    SCOPED_TRACE(model->sizes);
    const std::vector<Request> requests = requests_for(read_config(*model->checkpoint), 1);
    std::vector<Recorded> expected;
    for (const char* layout : {"local", "2A1F", "1A2F"}) {
      EngineConfig config = config_of(layout, 2);
      config.activations = Activations::kFp8;
      const std::vector<Recorded> found = RecordingEngine(*model->checkpoint, config).run(requests);
      if (expected.empty()) expected = found;
      for (std::size_t i = 0; i < requests.size(); ++i) expect_same_bits(expected[i], found[i]);
    }
  }
}

// Blocks of all types, by themselves and mixed in one product.
TEST(OddSizesInt8Activations, HaveTheSameBitsInEveryLayout) {
  for (const int seed : {0, 1, 2}) {
    const std::unique_ptr<OddModel> model = make_odd_model(OddFamily::kLlamaGguf, seed);
    SCOPED_TRACE(model->sizes);
    const std::vector<Request> requests = requests_for(read_config(*model->checkpoint), seed);
    std::vector<Recorded> expected;
    for (const char* layout : {"local", "2A1F", "1A2F"}) {
      EngineConfig config = config_of(layout, 2);
      config.activations = Activations::kInt8;
      const std::vector<Recorded> found = RecordingEngine(*model->checkpoint, config).run(requests);
      if (expected.empty()) expected = found;
      for (std::size_t i = 0; i < requests.size(); ++i) expect_same_bits(expected[i], found[i]);
    }
  }
}

// Experts, too.
TEST(Int8Activations, OfExpertsHaveTheSameBitsInEveryLayout) {
  const TemporaryFolder folder;
  const auto source = Checkpoint::open("tests/goldens/qwen3_moe");
  const auto checkpoint = Checkpoint::open(write_gguf_copy(folder, *source, GgufForm::kNew, GgufWeights::kQ8));
  const std::vector<Request> requests = requests_for(read_config(*checkpoint), 1);
  std::vector<Recorded> expected, unrounded;
  for (const char* layout : {"local", "1A1F", "2A2F", "1A3F", "2A2x2F"}) {
    SCOPED_TRACE(layout);
    EngineConfig config = config_of(layout, 3);
    if (unrounded.empty()) unrounded = RecordingEngine(*checkpoint, config).run(requests);
    config.activations = Activations::kInt8;
    const std::vector<Recorded> found = RecordingEngine(*checkpoint, config).run(requests);
    if (expected.empty()) expected = found;
    for (std::size_t i = 0; i < requests.size(); ++i) expect_same_bits(expected[i], found[i]);
  }
  EXPECT_NE(unrounded[0].logits.at(0), expected[0].logits.at(0));
}

// A tower with heads and widths of a few columns, on every backend.
TEST(OddSizesVision, AgreeBetweenBackends) {
  const std::unique_ptr<OddModel> model = make_odd_model(OddFamily::kStep3Vl, 0);
  SCOPED_TRACE(model->sizes);
  constexpr std::int32_t kSide = 504;
  std::vector<std::vector<float>> rows;
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(make_reference_backend());
  backends.push_back(make_cpu_backend({.threads = 2}));
  if (cuda::why_unusable(cuda::look_at_device()).empty()) backends.push_back(make_cuda_backend());
  for (const std::unique_ptr<Backend>& backend : backends) {
    const std::unique_ptr<Step3Vision> vision = load_vision(*model->checkpoint, *backend);
    Arena arena(*backend, vision->scratch_bytes() + (std::size_t{16} << 20));
    const Tensor pixels = arena.f32(kSide * kSide, 3), out = arena.f32(vision->rows_of(kSide), vision->hidden());
    Rng rng(1);
    std::vector<float> drawn(static_cast<std::size_t>(pixels.shape.elements()));
    for (float& value : drawn) value = static_cast<float>(2 * rng.uniform() - 1);
    backend->copy(pixels.data, drawn.data(), drawn.size() * sizeof(float));
    vision->encode({*backend, arena}, pixels, out);
    std::vector<float>& found = rows.emplace_back(static_cast<std::size_t>(out.shape.elements()));
    backend->copy(found.data(), out.data, found.size() * sizeof(float));
    backend->synchronise();
  }
  float size = 1;
  for (const float value : rows[0]) size = std::max(size, std::abs(value));
  for (std::size_t b = 1; b < rows.size(); ++b)
    for (std::size_t i = 0; i < rows[0].size(); ++i)
      ASSERT_NEAR(rows[0][i], rows[b][i], 1e-5f * size) << backends[b]->describe() << ", value " << i;
}

}  // namespace
}  // namespace tandem
