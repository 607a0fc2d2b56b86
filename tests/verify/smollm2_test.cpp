// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// SmolLM2-135M-Instruct in its packaged Q4_1 form against recordings of f32 arithmetic (tests/goldens/smollm2): greedy
// answers token for token, and the negative log-likelihood of every token of a text.
//
// The file is 98 MB and not part of the repository: TANDEM_SMOLLM2 names it (./dev test fetches it).
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>

#include "base/json.h"
#include "engine/engine.h"
#include "ops/cpu/cpu_backend.h"
#include "ops/cuda/device.h"

namespace tandem {
namespace {

Json read_json(const std::string& path) {
  std::ifstream file(path);
  return parse_json(std::string(std::istreambuf_iterator<char>(file), {}), path);
}

class SmolLM2 : public testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("TANDEM_SMOLLM2");
    if (!path) GTEST_SKIP() << "TANDEM_SMOLLM2 does not name the model file";
    checkpoint_ = Checkpoint::open(path);
  }

  EngineConfig config(const std::string& backend, DType kv_dtype, const std::string& layout = "local") const {
    EngineConfig c;
    c.backend = backend;
    c.kv_dtype = kv_dtype;
    c.layout = parse_layout(layout);
    c.context_tokens_max = 1024;
    c.kv_tokens = 16384;
    return c;
  }

  std::unique_ptr<Checkpoint> checkpoint_;
};

// The answers to all conversations at once: continuous batching with the recorded prompts.
std::vector<std::vector<std::int32_t>> greedy_answers(const Checkpoint& checkpoint, const EngineConfig& config,
                                                      const Json& cases) {
  const std::unique_ptr<Engine> engine = Engine::start(checkpoint, config);
  const auto events = std::make_shared<EventStream>();
  std::map<RequestId, std::size_t> index;
  for (const Json& c : cases) {
    Request request;
    request.id = engine->next_id();
    request.prompt = c["prompt_ids"].get<std::vector<std::int32_t>>();
    request.new_tokens_max = 48;
    request.stop_ids = engine->model().eos_ids;
    index[request.id] = index.size();
    EXPECT_TRUE(engine->submit(std::move(request), events).is_ok());
  }
  std::vector<std::vector<std::int32_t>> answers(index.size());
  for (std::size_t left = index.size(); left > 0;) {
    const auto event = events->pop(600'000'000'000);
    if (!event) break;
    for (const SampledToken& token : event->tokens) answers[index[event->id]].push_back(token.id);
    left -= event->finish != FinishReason::kNone;
  }
  return answers;
}

void expect_f32_answers(const Checkpoint& checkpoint, const EngineConfig& config) {
  const Json cases = read_json("tests/goldens/smollm2/greedy.json")["cases"];
  const auto answers = greedy_answers(checkpoint, config, cases);
  for (std::size_t i = 0; i < cases.size(); ++i)
    EXPECT_EQ(answers[i], cases[i]["f32"]["ids"].get<std::vector<std::int32_t>>()) << "case " << i;
}

TEST_F(SmolLM2, AnswersTokenForTokenInF32) {
  for (const char* layout : {"local", "1A1F", "2A2F", "1A1x4F"}) {
    SCOPED_TRACE(layout);
    expect_f32_answers(*checkpoint_, config("cpu", DType::kF32, layout));
  }
}

// Every instruction set that this machine has: the next machine may have only the least of them.
TEST_F(SmolLM2, EveryVariantAnswersTokenForTokenInF32) {
  for (const CpuVariant& variant : cpu_variants()) {
    if (!variant.available()) {
      std::cout << "not tried: " << variant.name << ", the machine lacks " << variant.missing << "\n";
      continue;
    }
    SCOPED_TRACE(variant.name);
    EngineConfig c = config("cpu", DType::kF32);
    c.variant = variant.name;
    expect_f32_answers(*checkpoint_, c);
  }
}

class SmolLM2OnTheGpu : public SmolLM2 {
 protected:
  void SetUp() override {
    if (const std::string reason = cuda::why_unusable(cuda::look_at_device()); !reason.empty()) GTEST_SKIP() << reason;
    SmolLM2::SetUp();
  }
};

TEST_F(SmolLM2OnTheGpu, AnswersTokenForTokenInF32) {
  for (const char* layout : {"local", "1A1F", "2A2F"}) {
    SCOPED_TRACE(layout);
    expect_f32_answers(*checkpoint_, config("cuda", DType::kF32, layout));
  }
}

TEST_F(SmolLM2, ReferenceAnswersTokenForToken) {
  expect_f32_answers(*checkpoint_, config("reference", DType::kF32));
}

// With KV in bf16 an answer may leave the recorded one, but only where two tokens were close.
TEST_F(SmolLM2, DefaultAnswersPartOnlyAtSmallMargins) {
  const Json cases = read_json("tests/goldens/smollm2/greedy.json")["cases"];
  const auto answers = greedy_answers(*checkpoint_, config("cpu", DType::kBF16), cases);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const auto expected = cases[i]["f32"]["ids"].get<std::vector<std::int32_t>>();
    std::size_t same = 0;
    while (same < expected.size() && same < answers[i].size() && expected[same] == answers[i][same]) ++same;
    if (same == expected.size() && answers[i].size() == expected.size()) continue;
    ASSERT_LT(same, cases[i]["f32"]["margin"].size()) << "case " << i;
    const double margin = cases[i]["f32"]["margin"][same].get<double>();
    std::cout << "case " << i << " parts at token " << same << ", where the margin is " << margin << "\n";
    EXPECT_LT(margin, 0.5) << "case " << i << " parts at token " << same;
  }
}

// Negative log-likelihood of each token of each window, as its logits come by.
class Likelihood final : public Observer {
 public:
  explicit Likelihood(const std::vector<std::vector<std::int32_t>>& windows) : windows_(windows), nll_(windows.size()) {
    for (std::size_t i = 0; i < windows.size(); ++i) nll_[i].assign(windows[i].size(), 0);
  }
  void on_route(RequestId, std::int64_t, std::int32_t, std::span<const std::int32_t>, std::span<const float>) override {
  }
  void on_logits(RequestId request, std::int64_t position, std::span<const float> logits) override {
    const auto& window = windows_[request - 1];
    if (position + 1 >= static_cast<std::int64_t>(window.size())) return;
    const float top = *std::max_element(logits.begin(), logits.end());
    double total = 0;
    for (const float value : logits) total += std::exp(value - top);
    nll_[request - 1][position + 1] = top + std::log(total) - logits[window[position + 1]];
  }
  const std::vector<std::vector<double>>& nll() const { return nll_; }

 private:
  const std::vector<std::vector<std::int32_t>>& windows_;
  std::vector<std::vector<double>> nll_;
};

struct NllErrors {
  double largest = 0;  // of any token
  double rms = 0;
  double mean = 0;  // of the mean over all scored tokens
};

NllErrors nll_errors(const Checkpoint& checkpoint, EngineConfig config, std::size_t windows_max) {
  const Json recorded = read_json("tests/goldens/smollm2/nll.json");
  const auto tokens = recorded["tokens"].get<std::vector<std::int32_t>>();
  const auto expected = recorded["f32"]["nll"].get<std::vector<double>>();
  const auto context = recorded["context"].get<std::size_t>();
  std::vector<std::vector<std::int32_t>> windows;
  for (std::size_t i = 0; i < std::min(windows_max, tokens.size() / context); ++i)
    windows.emplace_back(tokens.begin() + static_cast<std::ptrdiff_t>(i * context),
                         tokens.begin() + static_cast<std::ptrdiff_t>((i + 1) * context));
  Likelihood likelihood(windows);
  config.observer = &likelihood;
  const std::unique_ptr<Engine> engine = Engine::start(checkpoint, config);
  const auto events = std::make_shared<EventStream>();
  for (const auto& window : windows) {
    Request request{.id = engine->next_id(), .prompt = window, .new_tokens_max = 1};
    request.prompt_logits = true;
    EXPECT_TRUE(engine->submit(std::move(request), events).is_ok());
  }
  for (std::size_t left = windows.size(); left > 0;) {
    const auto event = events->pop(1'200'000'000'000);
    if (!event) return {INFINITY, INFINITY};
    left -= event->finish != FinishReason::kNone;
  }
  engine->stop();
  NllErrors errors;
  double mean_expected = 0, mean_found = 0, squares = 0;
  std::int64_t scored = 0;
  for (std::size_t w = 0; w < windows.size(); ++w) {
    for (std::size_t i = 1; i < context; ++i, ++scored) {
      const double found = likelihood.nll()[w][i], wanted = expected[w * context + i];
      errors.largest = std::max(errors.largest, std::abs(found - wanted));
      squares += (found - wanted) * (found - wanted);
      mean_expected += wanted;
      mean_found += found;
    }
  }
  errors.mean = std::abs(mean_found - mean_expected) / static_cast<double>(scored);
  errors.rms = std::sqrt(squares / static_cast<double>(scored));
  std::cout << scored << " tokens, largest NLL error " << errors.largest << ", rms " << errors.rms << ", of the mean "
            << errors.mean << "\n";
  return errors;
}

TEST_F(SmolLM2, LikelihoodsInF32) {
  EXPECT_LT(nll_errors(*checkpoint_, config("cpu", DType::kF32), 8).largest, 1e-3);
}

TEST_F(SmolLM2OnTheGpu, LikelihoodsInF32) {
  EXPECT_LT(nll_errors(*checkpoint_, config("cuda", DType::kF32), 8).largest, 1e-3);
}

TEST_F(SmolLM2OnTheGpu, DefaultMeanLikelihood) {
  EXPECT_LT(nll_errors(*checkpoint_, config("cuda", DType::kBF16), 8).mean, 0.005);
}

TEST_F(SmolLM2, ReferenceLikelihoods) {
  EXPECT_LT(nll_errors(*checkpoint_, config("reference", DType::kF32), 8).largest, 1e-3);
}

// llama.cpp, which rounds in the same blocks, was recorded to be off by 0.092 (rms) and 0.00093 in the mean.
TEST_F(SmolLM2, LikelihoodsWithInt8Activations) {
  EngineConfig int8 = config("cpu", DType::kBF16);
  int8.activations = Activations::kInt8;
  const NllErrors errors = nll_errors(*checkpoint_, int8, 8);
  EXPECT_LT(errors.rms, 0.12);
  EXPECT_LT(errors.mean, 0.01);  // seven times what chance makes of that many tokens
}

TEST_F(SmolLM2, DefaultMeanLikelihood) {
  EXPECT_LT(nll_errors(*checkpoint_, config("cpu", DType::kBF16), 8).mean, 0.005);
}

}  // namespace
}  // namespace tandem
