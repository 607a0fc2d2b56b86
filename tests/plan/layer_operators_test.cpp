// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The planner's operators beside those of real steps: the same names in the same order, with the same work.
#include "plan/layer_operators.h"

#include <gtest/gtest.h>

#include <mutex>
#include <numeric>

#include "engine/engine.h"
#include "engine/speed.h"
#include "ops/traced.h"

namespace tandem {
namespace {

struct Ran {
  std::string name;
  std::int64_t rows;
  Work work;
};
using Step = std::vector<Ran>;

// What runs for one prompt and the tokens after it, cut where a step begins.
std::vector<Step> real_steps(const std::string& path, std::int64_t prompt_tokens, std::int32_t new_tokens) {
  const auto checkpoint = Checkpoint::open(path);
  const RealClock clock;
  std::mutex mutex;
  std::vector<Step> steps;
  EngineConfig config;
  config.backend = "reference";
  config.kv_dtype = DType::kBF16;
  config.context_tokens_max = 64;
  config.sequences_max = 1;
  config.micro_batches = 1;
  config.vision = false;
  config.wrap_backend = [&](std::unique_ptr<Backend> inner) {
    return make_traced_backend(std::move(inner), clock, [&](const OperatorTrace& trace) {
      const std::lock_guard lock(mutex);
      if (trace.name == "embed_rows") steps.emplace_back();
      if (trace.name != "sample") steps.back().push_back({std::string(trace.name), trace.rows, trace.work});
    });
  };
  const auto engine = Engine::start(*checkpoint, config);
  const Prompts prompts = random_prompts(engine->model(), 1, prompt_tokens, 1);
  measure_decode(*engine, prompts, new_tokens);
  engine->stop();
  return steps;
}

Step planned_step(const ModelShape& shape, DType weights, const StepRows& rows) {
  const LayerOperators operators(shape, {weights, DType::kBF16}, Accounting::kOperators);
  Step step;
  const auto add = [&](const std::vector<PricedOperator>& ops) {
    for (const PricedOperator& op : ops) step.push_back({op.name, op.rows, op.work});
  };
  add(operators.embed(rows));
  for (std::int32_t i = 0; i < shape.layers(); ++i) {
    const LayerShape& layer = shape.layer(i);
    add(operators.attention(layer, rows, i == 0));
    add(operators.route(layer, rows));
    add(operators.experts(layer, rows));
    add(operators.combine(layer, rows));
  }
  add(operators.head(1));
  return step;
}

void expect_equal(const Step& planned, const Step& real, const std::string& what) {
  for (std::size_t i = 0; i < std::min(planned.size(), real.size()); ++i) {
    const std::string where = what + ", operator " + std::to_string(i) + " " + real[i].name;
    ASSERT_EQ(planned[i].name, real[i].name) << where;
    EXPECT_EQ(planned[i].rows, real[i].rows) << where;
    EXPECT_EQ(planned[i].work.flops, real[i].work.flops) << where;
    EXPECT_EQ(planned[i].work.bytes_read, real[i].work.bytes_read) << where;
    EXPECT_EQ(planned[i].work.bytes_written, real[i].work.bytes_written) << where;
  }
  EXPECT_EQ(planned.size(), real.size()) << what;
}

StepRows decoding_at(std::int64_t context) {
  return {{context}};
}

StepRows prompt_of(std::int64_t tokens) {
  StepRows rows;
  rows.contexts.resize(static_cast<std::size_t>(tokens));
  std::iota(rows.contexts.begin(), rows.contexts.end(), 1);
  return rows;
}

class RealSteps : public testing::TestWithParam<const char*> {};

TEST_P(RealSteps, AreWhatThePlannerPrices) {
  const std::string path = GetParam();
  const ModelShape shape = find_shape(path);
  constexpr std::int64_t kPrompt = 11;
  const std::vector<Step> steps = real_steps(path, kPrompt, 4);
  ASSERT_GE(steps.size(), 3u);
  expect_equal(planned_step(shape, DType::kF32, prompt_of(kPrompt)), steps[0], path + ", prompt");
  for (std::size_t i = 1; i < steps.size(); ++i)
    expect_equal(planned_step(shape, DType::kF32, decoding_at(kPrompt + static_cast<std::int64_t>(i))), steps[i],
                 path + ", token " + std::to_string(i));
}

INSTANTIATE_TEST_SUITE_P(Models, RealSteps,
                         testing::Values("tests/goldens/llama", "tests/goldens/qwen3", "tests/goldens/qwen3_moe",
                                         "tests/goldens/deepseek_v3", "tests/goldens/step3_text_bf16",
                                         "tests/goldens/step3_text_d256", "tests/goldens/step3p5"));

TEST(LayerOperators, LightningAttentionReadsAndWritesItsState) {
  const ModelShape shape = find_shape("minimax_m1");
  const LayerOperators operators(shape, {}, Accounting::kPaper);
  const auto at = [&](std::int64_t context) {
    for (const PricedOperator& op : operators.attention(shape.layer(0), {{context}}))
      if (op.part == CostPart::kAttentionCore) return op;
    return PricedOperator{};
  };
  EXPECT_EQ(at(8192).name, "lightning_attention");
  EXPECT_EQ(at(8192).kv_bytes, 2 * 4 * 64 * 128 * 128);
  EXPECT_EQ(at(8192).kv_bytes, at(32768).kv_bytes);
  EXPECT_EQ(at(8192).work.flops, 10 * 64 * 128 * 128);
}

TEST(StepRows, SeeTheirWindowOnly) {
  const StepRows rows{{1, 5, 20}};
  EXPECT_EQ(rows.seen(0), 26);
  EXPECT_EQ(rows.seen(8), 14);
}

}  // namespace
}  // namespace tandem
