// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Experts that are cut by width: models of every routed family whose experts are wider than those of the recorded
// checkpoints, whose blocks no number of parts divides. Logits and tokens are those of the local layout, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "base/format.h"
#include "model/model.h"
#include "tests/base/error_of.h"
#include "tests/engine/recording_engine.h"
#include "tests/model/synthetic_checkpoint.h"
#include "tests/verify/gguf_copy.h"

namespace tandem {
namespace {

struct Case {
  const char* golden;  // whose configuration it is
  std::int64_t expert_width;
  Activations activations = Activations::kF32;
  bool fp8 = false, q8 = false;  // how weights are stored
  std::int32_t parts_max = 8;
};

std::string name_of(const testing::TestParamInfo<Case>& info) {
  const Case& c = info.param;
  return format("{}_{}{}_{}", c.golden, c.expert_width, c.fp8 ? "_fp8" : c.q8 ? "_q8" : "", name(c.activations));
}

// The model in a folder that lasts as long as this.
class WideModel {
 public:
  explicit WideModel(const Case& c) {
    Json config = Json::parse(std::ifstream(format("tests/goldens/{}/config.json", c.golden)));
    config.erase("quantization_config");
    config["moe_intermediate_size"] = c.expert_width;
    SyntheticTensors tensors = tensors_for(config);
    if (c.fp8) make_block_fp8(config, tensors);
    plain_ = std::make_unique<SyntheticCheckpoint>(config, tensors);
    if (c.q8) copy_ = Checkpoint::open(write_gguf_copy(folder_, **plain_, GgufForm::kNew, GgufWeights::kQ8));
  }
  const Checkpoint& operator*() const { return copy_ ? *copy_ : **plain_; }

 private:
  TemporaryFolder folder_;
  std::unique_ptr<SyntheticCheckpoint> plain_;
  std::unique_ptr<Checkpoint> copy_;
};

std::vector<Request> some_requests() {
  std::vector<Request> requests;
  for (const std::int64_t tokens : {1, 64, 70, 33}) {
    Request request;
    request.prompt = random_prompt(tokens, 100 + static_cast<std::uint64_t>(tokens));
    request.new_tokens_max = 5;
    request.prompt_logits = true;
    requests.push_back(request);
  }
  requests[1].sampling = {.temperature = 0.8f, .seed = 7};
  return requests;
}

EngineConfig config_of(const Case& c, const std::string& layout, std::int32_t micro_batches) {
  EngineConfig config = small_engine(layout, micro_batches);
  config.activations = c.activations;
  config.checked = true;
  return config;
}

class ExpertWidth : public testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Models, ExpertWidth,
                         testing::Values(Case{"qwen3_moe", 256}, Case{"step3_text_bf16", 144, {}, false, false, 4},
                                         Case{"step3p5", 264}, Case{"deepseek_v3", 136, {}, false, false, 4},
                                         Case{"step3_text_bf16", 576, {}, true, false, 4},
                                         Case{"step3_text_bf16", 640, Activations::kFp8, true, false, 4},
                                         Case{"deepseek_v3", 512, {}, true, false, 4},
                                         Case{"qwen3_moe", 288, {}, false, true},
                                         Case{"qwen3_moe", 256, Activations::kInt8, false, true}),
                         name_of);

TEST_P(ExpertWidth, HasTheBitsOfTheLocalLayout) {
  const Case& c = GetParam();
  const WideModel model(c);
  const std::vector<Request> requests = some_requests();
  const std::vector<Recorded> expected = RecordingEngine(*model, config_of(c, "local", 1)).run(requests);
  EXPECT_NE(expected[0].logits.at(0), expected[1].logits.at(0));
  std::int32_t turn = 0;
  for (const char* layout :
       {"1A1x2F", "2A1x2F", "3A1x2F", "1A2x2F", "2A2x2F", "3A2x2F", "1A3x2F", "1A1x4F", "2A1x4F", "3A2x4F", "1A1x8F"}) {
    if (parse_layout(layout).ffn_width > c.parts_max) continue;
    SCOPED_TRACE(layout);
    const std::int32_t micro_batches = 1 + turn++ % kMicroBatchesMax;
    const std::vector<Recorded> found = RecordingEngine(*model, config_of(c, layout, micro_batches)).run(requests);
    for (std::size_t i = 0; i < requests.size(); ++i) expect_same_bits(expected[i], found[i]);
    if (HasFailure()) return;
  }
}

// All workers together hold every byte once, and each no more than its part of its experts.
TEST_P(ExpertWidth, EachWorkerLoadsItsPartAndNoMore) {
  const Case& c = GetParam();
  const WideModel model(c);
  const std::int32_t experts = read_config(*model).experts;
  const auto experts_bytes = [&](const ModelShare& share) {
    const PartSizes sizes = measure_share(*model, share);
    const auto found = sizes.find(Part::kExperts);
    return found == sizes.end() ? std::int64_t{0} : found->second.bytes;
  };
  const std::int64_t all = experts_bytes(shares({}, experts)[0]);
  for (const char* layout : {"1A1x2F", "1A2x2F", "1A2x4F", "1A1x8F"}) {
    SCOPED_TRACE(layout);
    const Layout parsed = parse_layout(layout);
    if (parsed.ffn_width > c.parts_max) continue;
    std::int64_t sum = 0, everything = 0;
    for (const ModelShare& share : shares(parsed, experts)) {
      const std::int64_t mine = experts_bytes(share);
      everything += total_bytes(measure_share(*model, share));
      sum += mine;
      if (share.attention) {
        EXPECT_EQ(mine, 0);
        continue;
      }
      EXPECT_GT(mine, 0);
      EXPECT_LE(mine, 2 * all / parsed.ffn_workers) << "blocks are not cut, so parts differ";
    }
    EXPECT_EQ(sum, all);
    EXPECT_EQ(everything, total_bytes(measure_share(*model, shares({}, experts)[0])));
  }
}

// Widths have to have as many blocks as there are parts.
TEST(ExpertWidthLimit, MorePartsThanBlocksAreRefused) {
  for (const Case& c : {Case{"step3_text_bf16", 144}, Case{"step3_text_bf16", 144, {}, true}}) {
    const WideModel model(c);
    const Error error = error_of([&] { Engine::start(*model, config_of(c, "1A1x8F", 1)); });
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_EQ(
        error.message(),
        format("model.layers.1.moe.down_proj.weight: experts are 144 wide in blocks of {}, which can be cut into {} "
               "parts, not into 8 (--layout, split.width)",
               c.fp8 ? 128 : 32, c.fp8 ? 2 : 5));
  }
}

}  // namespace
}  // namespace tandem
