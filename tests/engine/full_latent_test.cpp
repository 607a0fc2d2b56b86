// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The first invariant (bit_equal_test.cpp) for a latent as wide as DeepSeek's own, 512 and a rotated key of 64, which
// has kernels and pages of its own on a GPU, and for contexts that they cut into parts. On a GPU alone: elsewhere the
// width of a latent changes nothing.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "ops/cuda/device.h"
#include "tests/engine/recording_engine.h"
#include "tests/model/synthetic_checkpoint.h"

namespace tandem {
namespace {

class FullLatent : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = cuda::why_unusable(cuda::look_at_device()); !reason.empty()) GTEST_SKIP() << reason;
    load(1);
  }

  void load(int dense_layers) {
    Json config = Json::parse(std::ifstream("tests/goldens/deepseek_v3/config.json"));
    config["kv_lora_rank"] = 512;
    config["qk_rope_head_dim"] = 64;
    config["num_attention_heads"] = config["num_key_value_heads"] = 40;  // a tile's 32 and some
    config["first_k_dense_replace"] = dense_layers;
    checkpoint_ = std::make_unique<SyntheticCheckpoint>(config, tensors_for(config));
  }

  static EngineConfig config(const std::string& layout = "local", std::int32_t micro_batches = 1) {
    EngineConfig config = small_engine(layout, micro_batches);
    config.backend = "cuda";
    config.kv_tokens = 4096;
    config.context_tokens_max = 1280;
    return config;
  }

  static std::vector<Request> requests(std::int32_t new_tokens) {
    std::vector<Request> requests;
    for (const std::int64_t tokens : {1, 64, 1019, 70}) {
      Request request;
      request.prompt = random_prompt(tokens, 100 + static_cast<std::uint64_t>(tokens));
      request.new_tokens_max = new_tokens;
      request.prompt_logits = true;
      requests.push_back(request);
    }
    requests[1].sampling = {.temperature = 0.9f, .seed = 7};
    return requests;
  }

  std::vector<Recorded> alone(const std::vector<Request>& requests, const EngineConfig& config) {
    std::vector<Recorded> results;
    RecordingEngine engine(**checkpoint_, config);
    for (const Request& request : requests) results.push_back(engine.run({request}).front());
    return results;
  }

  std::unique_ptr<SyntheticCheckpoint> checkpoint_;
};

TEST_F(FullLatent, HasTheSameBitsInEveryLayoutAndChunkOnAGpu) {
  const std::vector<Request> asked = requests(10);  // of 1,019 tokens: into the second part
  const std::vector<Recorded> expected = alone(asked, config());
  for (const char* layout : {"local", "1A1F", "2A2F"}) {
    for (const std::int64_t chunk : {7, 64}) {
      SCOPED_TRACE(layout);
      EngineConfig other = config(layout, layout[0] == 'l' ? 1 : 2);
      other.prefill_chunk = chunk;
      const std::vector<Recorded> found = RecordingEngine(**checkpoint_, other).run(asked);
      for (std::size_t i = 0; i < asked.size(); ++i) expect_same_bits(expected[i], found[i]);
      if (HasFailure()) return;
    }
  }
}

TEST_F(FullLatent, HasTheSameTokensWhenAGpuReplaysSteps) {
  std::vector<Request> asked = requests(80);
  for (Request& request : asked) request.prompt_logits = false;
  const std::vector<Recorded> expected = alone(asked, config());
  for (const bool ahead : {false, true}) {
    EngineConfig replaying = config();
    replaying.run_ahead = ahead;
    const std::vector<Recorded> found = RecordingEngine(**checkpoint_, replaying, false).run(asked);
    for (std::size_t i = 0; i < asked.size(); ++i)
      EXPECT_EQ(found[i].tokens, expected[i].tokens) << "request " << i << ", ahead " << ahead;
  }
}

TEST_F(FullLatent, HasTheSameBitsAfterPreemptionOnAGpu) {
  Request request = requests(60).back();
  const Recorded expected = alone({request}, config()).front();
  RecordingEngine engine(**checkpoint_, config("1A1F", 2));
  const RequestId id = engine.submit(request);
  int preemptions = 0;
  for (std::size_t tokens = 1; tokens < 50; tokens += 15) {
    engine.wait_for_tokens(id, tokens);
    for (AttentionWorker* worker : engine.engine().attention_workers())
      worker->between_steps([&] { preemptions += worker->scheduler().preempt_youngest(); });
  }
  engine.wait();
  EXPECT_GT(preemptions, 0);
  expect_same_bits(expected, engine.result(id));
}

// Another sum of the same numbers: near the CPU's, but for what bf16 pages round the other way. Without experts, whose
// choice that may turn.
TEST_F(FullLatent, IsNearTheCpuOnAGpu) {
  load(3);
  const std::vector<Request> asked = requests(1);
  EngineConfig cpu = config();
  cpu.backend = "cpu";
  const std::vector<Recorded> expected = alone(asked, cpu), found = alone(asked, config());
  for (std::size_t i = 0; i < asked.size(); ++i) {
    double error = 0, size = 0;
    for (const auto& [position, logits] : expected[i].logits) {
      const std::vector<float>& others = found[i].logits.at(position);
      for (std::size_t c = 0; c < logits.size(); ++c) {
        error += std::pow(static_cast<double>(others[c]) - logits[c], 2);
        size += std::pow(static_cast<double>(logits[c]), 2);
      }
    }
    std::printf("%zu tokens: error %.2e\n", asked[i].prompt.size(), std::sqrt(error / size));
    EXPECT_LE(std::sqrt(error / size), 5e-3) << asked[i].prompt.size() << " tokens";
  }
}

}  // namespace
}  // namespace tandem
