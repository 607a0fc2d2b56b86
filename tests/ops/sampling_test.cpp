// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The filters against recorded probabilities, and what a draw promises.
#include "ops/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <string>

#include "checkpoint/mapped_file.h"
#include "checkpoint/safetensors.h"

namespace tandem {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

SampleRow row_of(const SamplingParams& params, std::span<const std::int32_t> prompt = {},
                 std::span<const std::int32_t> answer = {}, std::uint64_t position = 0) {
  return {&params, prompt, answer, position};
}

std::vector<float> probabilities(const SampleRow& row, std::vector<float> logits) {
  filter_logits(row, logits);
  const float top = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float value : logits) total += std::exp(static_cast<double>(value) - top);
  for (float& value : logits) value = static_cast<float>(std::exp(static_cast<double>(value) - top) / total);
  return logits;
}

std::int32_t draw(const SampleRow& row, std::span<const float> logits) {
  std::vector<float> scratch;
  return sample_row(row, logits, scratch).id;
}

template <class T>
std::vector<T> read(const MappedFile& file, const TensorInfo& info) {
  std::vector<T> values(info.bytes / sizeof(T));
  std::memcpy(values.data(), file.bytes(info.offset, info.bytes).data(), info.bytes);
  return values;
}

// The recorded names are the filters with their values: "temperature_0.8_top_k_20_top_p_0.95".
SamplingParams params_of(const std::string& name) {
  SamplingParams p;
  p.temperature = 1;
  const auto value = [&](const char* key) -> const char* {
    const std::size_t at = name.find(std::string(key) + "_");
    return at == std::string::npos ? nullptr : name.c_str() + at + std::strlen(key) + 1;
  };
  if (const char* v = value("temperature")) p.temperature = std::strtof(v, nullptr);
  if (const char* v = value("top_k")) p.top_k = std::atoi(v);
  if (const char* v = value("top_p")) p.top_p = std::strtof(v, nullptr);
  if (const char* v = value("min_p")) p.min_p = std::strtof(v, nullptr);
  if (const char* v = value("repetition_penalty"))
    p.repetition_penalty = std::strtof(v, nullptr);
  else if (const char* w = value("repetition"))
    p.repetition_penalty = std::strtof(w, nullptr);
  return p;
}

TEST(Sampling, FiltersGiveTheRecordedProbabilities) {
  const MappedFile file = MappedFile::open("tests/goldens/text/expected.safetensors");
  const SafetensorsHeader header = parse_safetensors(file.bytes(), file.path());
  std::map<std::string, TensorInfo> tensors;
  for (const TensorInfo& info : header.tensors) tensors[info.name] = info;
  const auto logits = read<float>(file, tensors.at("logits"));
  const auto history = read<std::int32_t>(file, tensors.at("history"));
  int cases = 0;
  for (const auto& [name, info] : tensors) {
    constexpr std::string_view kPrefix = "probabilities.";
    if (!name.starts_with(kPrefix)) continue;
    ++cases;
    const SamplingParams params = params_of(name.substr(kPrefix.size()));
    const std::vector<float> expected = read<float>(file, info), found = probabilities(row_of(params, history), logits);
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-6) << name << ", token " << i;
  }
  EXPECT_EQ(cases, 9);
}

TEST(Sampling, GreedyTakesTheLowestIdOnATie) {
  const SamplingParams greedy;
  EXPECT_EQ(draw(row_of(greedy), std::vector<float>{1, 3, 3, 2}), 1);
}

TEST(Sampling, GreedyFindsTheLargestWhereverItIs) {
  const SamplingParams greedy{.temperature = 0};
  for (const std::size_t size : {1, 2, 15, 16, 17, 31, 32, 33, 100}) {
    for (std::size_t place = 0; place < size; ++place) {
      std::vector<float> logits(size, -3.5f);
      for (std::size_t i = place; i < size; i += 7) logits[i] = 2;  // others of the same size come after it
      EXPECT_EQ(draw(row_of(greedy), logits), static_cast<std::int32_t>(place)) << size;
    }
  }
}

TEST(Sampling, PenaltiesAndBiasApplyToGreedyToo) {
  const std::vector<float> logits = {3, 2.5f, 2, -1};
  const std::vector<std::int32_t> seen = {0, 0};
  SamplingParams p;
  p.repetition_penalty = 2;
  EXPECT_EQ(draw(row_of(p, seen), logits), 1);
  p = {};
  p.presence_penalty = 0.6f;
  EXPECT_EQ(draw(row_of(p, seen), logits), 0) << "presence is for the answer";
  EXPECT_EQ(draw(row_of(p, {}, seen), logits), 1);
  p = {};
  p.frequency_penalty = 0.3f;  // twice
  EXPECT_EQ(draw(row_of(p, {}, seen), logits), 1);
  p = {};
  p.logit_bias = {{3, 10.0f}, {99, 5.0f}, {-1, 5.0f}};
  EXPECT_EQ(draw(row_of(p), logits), 3);
}

TEST(Sampling, NegativeLogitsArePenalisedDownwards) {
  SamplingParams p;
  p.temperature = 1;
  p.repetition_penalty = 2;
  const std::vector<std::int32_t> seen = {0};
  std::vector<float> logits = {-1, -1};
  filter_logits(row_of(p, seen), logits);
  EXPECT_EQ(logits, (std::vector<float>{-2, -1}));
}

TEST(Sampling, ADrawDependsOnSeedAndPositionOnly) {
  const std::vector<float> logits(100, 0.0f);
  SamplingParams p;
  p.temperature = 1;
  p.seed = 5;
  int differing_positions = 0, differing_seeds = 0;
  SamplingParams other = p;
  other.seed = 6;
  for (std::uint64_t position = 0; position < 50; ++position) {
    const std::int32_t id = draw(row_of(p, {}, {}, position), logits);
    EXPECT_EQ(draw(row_of(p, {}, {}, position), logits), id);
    differing_positions += id != draw(row_of(p, {}, {}, position + 1), logits);
    differing_seeds += id != draw(row_of(other, {}, {}, position), logits);
  }
  EXPECT_GT(differing_positions, 40);
  EXPECT_GT(differing_seeds, 40);
}

TEST(Sampling, DrawsFollowTheProbabilities) {
  const std::vector<float> logits = {std::log(0.7f), std::log(0.2f), std::log(0.1f)};
  SamplingParams p;
  p.temperature = 1;
  std::array<int, 3> counts{};
  for (std::uint64_t position = 0; position < 10000; ++position) ++counts[draw(row_of(p, {}, {}, position), logits)];
  EXPECT_NEAR(counts[0], 7000, 200);
  EXPECT_NEAR(counts[1], 2000, 180);
  EXPECT_NEAR(counts[2], 1000, 140);
}

TEST(Sampling, TokensFilteredOutAreNeverDrawn) {
  const std::vector<float> logits = {1, 2, 3, 4};
  SamplingParams p;
  p.temperature = 5;
  p.top_k = 2;
  for (std::uint64_t position = 0; position < 200; ++position) EXPECT_GE(draw(row_of(p, {}, {}, position), logits), 2);
}

TEST(Sampling, LogitsThatAreNotFiniteFailTheRow) {
  std::vector<float> scratch;
  for (const float bad : {NAN, kInfinity, -kInfinity}) {
    for (const float temperature : {0.0f, 1.0f}) {
      SamplingParams p;
      p.temperature = temperature;
      const SampledToken token = sample_row(row_of(p), std::vector<float>{1, bad, 2}, scratch);
      EXPECT_TRUE(token.failed);
      EXPECT_EQ(token.id, -1);
    }
  }
}

TEST(Sampling, LogprobsAreOfTheUnfilteredDistribution) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  SamplingParams p;
  p.temperature = 0.1f;
  p.top_k = 1;
  p.logprobs = 2;
  std::vector<float> scratch;
  const SampledToken token = sample_row(row_of(p), logits, scratch);
  EXPECT_EQ(token.id, 0);
  EXPECT_NEAR(token.logprob, std::log(0.5), 1e-6);
  ASSERT_EQ(token.top_logprobs.size(), 2u);
  EXPECT_EQ(token.top_logprobs[0].first, 0);
  EXPECT_EQ(token.top_logprobs[1].first, 1);
  EXPECT_NEAR(token.top_logprobs[1].second, std::log(0.3), 1e-6);
}

TEST(Sampling, OnlyWhatIsAllowedIsDrawnWhateverTheFilters) {
  std::vector<float> logits(70);
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i) * 0.1F;
  const std::array<std::uint32_t, 2> allowed = {1U << 5 | 1U << 9, 1U << 1};  // 5, 9 and 33; 64 and above have no word
  SamplingParams params;
  SampleRow row = row_of(params);
  row.allowed = allowed;
  EXPECT_EQ(draw(row, logits), 33) << "greedy";
  params.logit_bias = {{64, 100.0F}, {7, 100.0F}, {5, 50.0F}};
  EXPECT_EQ(draw(row, logits), 5) << "a bias does not allow";
  params.logit_bias.clear();
  params.repetition_penalty = 2;
  params.top_k = 2;
  params.temperature = 3;
  std::map<std::int32_t, int> drawn;
  for (row.position = 0; row.position < 200; ++row.position) ++drawn[draw(row, logits)];
  EXPECT_EQ(drawn.size(), 2u) << "top-k counts among what is allowed";
  EXPECT_TRUE(drawn.contains(33) && drawn.contains(9));
  for (float p : probabilities(row, logits)) EXPECT_TRUE(std::isfinite(p));
}

TEST(Sampling, NothingAllowedFailsTheRow) {
  const std::vector<float> logits(40, 1.0F);
  const std::array<std::uint32_t, 2> none = {0, 0};
  for (const float temperature : {0.0F, 1.0F}) {
    const SamplingParams params{.temperature = temperature};
    SampleRow row = row_of(params);
    row.allowed = none;
    std::vector<float> scratch;
    EXPECT_TRUE(sample_row(row, logits, scratch).failed);
  }
}

}  // namespace
}  // namespace tandem
