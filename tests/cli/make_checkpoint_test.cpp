// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <mutex>
#include <set>

#include "base/json.h"
#include "engine/engine.h"
#include "engine/speed.h"
#include "synthetic/published_config.h"
#include "tests/checkpoint/temporary_folder.h"
#include "tests/cli/program.h"

namespace tandem {
namespace {

using testing::HasSubstr;

ProgramResult make(const std::string& folder, const std::string& like, const std::vector<std::string>& more = {}) {
  std::vector<std::string> arguments{"make-checkpoint", folder, "--like", like, "--vocab", "1000", "--experts", "16"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run_program(arguments);
}

// Which experts a prompt chose, and whether all logits were finite.
class Watcher final : public Observer {
 public:
  void on_route(RequestId, std::int64_t, std::int32_t, std::span<const std::int32_t> ids,
                std::span<const float>) override {
    std::lock_guard lock(mutex_);
    chosen.insert(ids.begin(), ids.end());
  }
  void on_logits(RequestId, std::int64_t, std::span<const float> logits) override {
    std::lock_guard lock(mutex_);
    ++rows;
    for (const float logit : logits) finite = finite && std::isfinite(logit);
  }

  std::set<std::int32_t> chosen;
  std::int64_t rows = 0;
  bool finite = true;

 private:
  std::mutex mutex_;
};

TEST(MakeCheckpoint, EveryFamilyGeneratesAndUsesItsExperts) {
  for (const PublishedConfig& published : published_configs()) {
    SCOPED_TRACE(published.name);
    const TemporaryFolder folder;
    const std::string path = folder.path("model");
    const ProgramResult made = make(path, std::string(published.name), {"--scale", "0.03", "--layers", "4"});
    ASSERT_EQ(made.status, 0) << made.err;
    EXPECT_THAT(made.out, HasSubstr("wrote " + path));
    const ProgramResult result = run_program({"generate", "--model", path, "-q", "-n", "4", "Once upon a time"});
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_EQ(parse_json(result.out, "answer")["usage"]["completion_tokens"], 4) << result.out;

    Watcher watcher;
    EngineConfig config;
    config.kv_tokens = 1024;
    config.observer = &watcher;
    config.vision = false;
    const auto checkpoint = Checkpoint::open(path);
    const auto engine = Engine::start(*checkpoint, config);
    measure_decode(*engine, random_prompts(engine->model(), 2, 64, 1), 4);
    engine->stop();
    EXPECT_GT(watcher.rows, 0);
    EXPECT_TRUE(watcher.finite);
    const std::size_t experts = engine->model().experts > 0 ? 16 : 0;
    EXPECT_EQ(watcher.chosen.size(), experts) << "some experts are never chosen";
  }
}

TEST(MakeCheckpoint, SaysWhatItWouldBe) {
  const ProgramResult result = run_program({"make-checkpoint", "--like", "deepseek_v3", "--dry-run"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.out,
            "deepseek_v3, 61 layers, 7168 wide, 256 experts, fp8: 671.026 billion parameters, 90427 tensors, "
            "673.151 GB in 135 files\n");
}

TEST(MakeCheckpoint, AimsAtASizeInShards) {
  const TemporaryFolder folder;
  const ProgramResult made =
      make(folder.path("model"), "step3_fp8", {"--gigabytes", "0.03", "--shard-gigabytes", "0.01"});
  ASSERT_EQ(made.status, 0) << made.err;
  EXPECT_TRUE(std::filesystem::exists(folder.path("model/model.safetensors.index.json")));
  const auto checkpoint = Checkpoint::open(folder.path("model"));
  EXPECT_LE(checkpoint->tensor_bytes(), 30'000'000u);
  EXPECT_GT(checkpoint->tensor_bytes(), 24'000'000u);
}

TEST(MakeCheckpoint, SaysWhatIsWrong) {
  const TemporaryFolder folder;
  const std::string path = folder.path("model");
  EXPECT_EQ(make(path, "step3", {"--scale", "0.1", "--gigabytes", "1"}).status, 2);
  EXPECT_THAT(make(path, "gpt2").err, HasSubstr("no model is called gpt2"));
  EXPECT_THAT(make(path, "step3", {"--set", "moe_top_k"}).err, HasSubstr("KEY=VALUE"));
  EXPECT_THAT(make(path, "step3", {"--set", "moe_top_k=17"}).err, HasSubstr("moe_top_k is 17"));
  EXPECT_THAT(run_program({"make-checkpoint"}).err, HasSubstr("a folder to write is required"));
  ASSERT_EQ(make(path, "llama", {"--scale", "0.03"}).status, 0);
  EXPECT_THAT(make(path, "llama", {"--scale", "0.03"}).err, HasSubstr("nothing is overwritten"));
}

}  // namespace
}  // namespace tandem
