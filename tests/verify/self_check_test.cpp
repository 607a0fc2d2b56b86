// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "verify/self_check.h"

#include <gmock/gmock.h>

#include <limits>
#include <string>
#include <variant>

#include "ops/forwarding.h"

namespace tandem {
namespace {

SelfCheckReport check(const std::string& golden, EngineConfig config) {
  const auto checkpoint = Checkpoint::open("tests/goldens/" + golden);
  SelfCheck self_check(*checkpoint);
  self_check.connect(config);
  const auto engine = Engine::start(*checkpoint, config);
  return self_check.run(*engine, 1);
}

std::vector<std::string> names(const SelfCheckReport& report) {
  std::vector<std::string> names;
  names.reserve(report.operators.size());
  for (const ComparedOperator& op : report.operators) names.push_back(op.name);
  return names;
}

class SelfCheckTest : public testing::TestWithParam<const char*> {};

TEST_P(SelfCheckTest, PassesInEveryLayout) {
  for (const char* layout : {"local", "2A2F"}) {
    SCOPED_TRACE(layout);
    EngineConfig config;
    config.layout = parse_layout(layout);
    const SelfCheckReport report = check(GetParam(), config);
    EXPECT_TRUE(report.passed());
    for (const ComparedOperator& op : report.operators) EXPECT_LE(op.largest, op.limit) << op.name;
    EXPECT_THAT(names(report), testing::IsSupersetOf({"embedding", "norm", "projection", "rotation", "attention",
                                                      "gated activation", "head"}));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SelfCheckTest,
                         testing::Values("llama", "llama_gguf/llama-q4_k_m.gguf", "qwen3", "qwen3_moe",
                                         "step3_text_bf16", "step3_text_fp8", "step3_vl", "deepseek_v3", "step3p5"));

TEST(SelfCheck, KnowsWhatBelongsToAFamily) {
  EXPECT_THAT(names(check("deepseek_v3", {})),
              testing::IsSupersetOf({"router", "choice of experts", "experts", "projection by heads"}));
  EXPECT_THAT(names(check("step3p5", {})), testing::Contains("gates of heads"));
}

TEST(SelfCheck, TakesActivationsInFp8AsTheyCome) {
  EngineConfig config;
  config.activations = Activations::kFp8;
  EXPECT_TRUE(check("step3_text_fp8", config).passed());
  config.backend = "reference";  // has FP8 products
  const SelfCheckReport report = check("step3_text_fp8", config);
  EXPECT_TRUE(report.passed());
  EXPECT_THAT(names(report), testing::IsSupersetOf({"projection in fp8", "experts in fp8"}));
}

TEST(SelfCheck, TakesActivationsInInt8AsTheyCome) {
  EngineConfig config;
  config.activations = Activations::kInt8;
  const SelfCheckReport report = check("llama_gguf/llama-q4_k_m.gguf", config);
  EXPECT_TRUE(report.passed());
  EXPECT_THAT(names(report), testing::IsSupersetOf({"projection in int8", "head in int8"}));
}

TEST(SelfCheck, WorksInAShortContext) {
  EngineConfig config;
  config.context_tokens_max = 8;
  EXPECT_TRUE(check("llama", config).passed());
}

// A backend with one fault: what an operator of one kind leaves is larger than it should be.
template <class Op>
class Faulty final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  void run(const Operator& op) override {
    ForwardingBackend::run(op);
    const auto* mine = std::get_if<Op>(&op);
    if (!mine) return;
    Tensor out;
    if constexpr (std::is_same_v<Op, Rope> || std::is_same_v<Op, GateHeads>)
      out = mine->x;
    else if constexpr (std::is_same_v<Op, SelectExperts>)
      out = mine->expert_weights;
    else
      out = mine->out;
    for (std::int64_t row = 0; row < out.rows(); ++row)
      for (std::int64_t c = 0; c < out.shape[1]; ++c) out.row<float>(row)[c] *= 1.2f;
  }
};

template <class Op>
std::vector<std::string> found_faults(const std::string& golden, EngineConfig config = {}) {
  config.wrap_backend = [](std::unique_ptr<Backend> inner) { return std::make_unique<Faulty<Op>>(std::move(inner)); };
  const SelfCheckReport report = check(golden, config);
  EXPECT_FALSE(report.passed());
  std::vector<std::string> faults;
  for (const ComparedOperator& op : report.operators)
    if (!op.passed()) faults.push_back(op.name);
  return faults;
}

TEST(SelfCheck, FindsTheOperatorThatIsWrong) {
  using testing::ElementsAre;
  using testing::UnorderedElementsAre;
  EXPECT_THAT(found_faults<EmbedRows>("llama"), ElementsAre("embedding"));
  EXPECT_THAT(found_faults<RmsNorm>("qwen3"), ElementsAre("norm"));
  EXPECT_THAT(found_faults<AddRmsNorm>("llama"), ElementsAre("norm"));
  EXPECT_THAT(found_faults<MatMul>("qwen3_moe"), UnorderedElementsAre("projection", "router", "head"));
  EXPECT_THAT(found_faults<GroupedMatMul>("step3_text_fp8"), ElementsAre("experts"));
  EXPECT_THAT(found_faults<Rope>("llama"), ElementsAre("rotation"));
  EXPECT_THAT(found_faults<ProjectHeads>("deepseek_v3"), ElementsAre("projection by heads"));
  EXPECT_THAT(found_faults<GateHeads>("step3p5"), ElementsAre("gates of heads"));
  EXPECT_THAT(found_faults<PagedAttention>("step3p5"), ElementsAre("attention"));
  EXPECT_THAT(found_faults<SwiGlu>("llama"), ElementsAre("gated activation"));
  EXPECT_THAT(found_faults<SelectExperts>("deepseek_v3"), ElementsAre("choice of experts"));
  EngineConfig int8;
  int8.activations = Activations::kInt8;
  EXPECT_THAT(found_faults<Int8MatMul>("llama_gguf/llama-q4_1.gguf", int8),
              UnorderedElementsAre("projection in int8", "head in int8"));
  EngineConfig fp8;
  fp8.backend = "reference";
  fp8.activations = Activations::kFp8;
  EXPECT_THAT(found_faults<Fp8MatMul>("step3_text_fp8", fp8), ElementsAre("projection in fp8"));
  EXPECT_THAT(found_faults<Fp8Experts>("step3_text_fp8", fp8), ElementsAre("experts in fp8"));
}

// A weight that is packed wrongly: the rows of two outputs are exchanged.
class Exchanging final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  std::unique_ptr<Weight> pack(const WeightSource& source) override {
    WeightSource wrong = source;
    WeightPart& part = wrong.parts.front();
    if (part.rows < 2) return ForwardingBackend::pack(source);
    std::vector<std::int32_t> order;
    order.reserve(static_cast<std::size_t>(part.rows));
    for (std::int32_t i = 0; i < part.rows; ++i) order.push_back(static_cast<std::int32_t>(part.source_row(i)));
    std::swap(order[0], order[1]);
    part.row_order = std::move(order);
    return ForwardingBackend::pack(wrong);
  }
};

TEST(SelfCheck, FindsWeightsThatAreNotThoseOfTheFile) {
  for (const char* golden : {"step3_text_bf16", "step3_text_fp8", "deepseek_v3"}) {
    EngineConfig config;
    config.wrap_backend = [](std::unique_ptr<Backend> inner) { return std::make_unique<Exchanging>(std::move(inner)); };
    const SelfCheckReport report = check(golden, config);
    for (const ComparedOperator& op : report.operators) {
      if (op.name == "embedding") continue;  // the two rows may not be in the prompt
      const bool product =
          op.name.starts_with("projection") || op.name == "experts" || op.name == "head" || op.name == "router";
      EXPECT_EQ(op.passed(), !product) << golden << " " << op.name;
    }
  }
}

TEST(SelfCheck, NothingComparedIsNoPass) {
  EXPECT_FALSE(SelfCheckReport().passed());
  EXPECT_FALSE((ComparedOperator{"a", 1, std::numeric_limits<double>::quiet_NaN(), 1}.passed()));
}

}  // namespace
}  // namespace tandem
