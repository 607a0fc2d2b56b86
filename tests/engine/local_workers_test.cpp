// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/local_workers.h"

#include <gtest/gtest.h>

#include <atomic>

#include "base/error.h"
#include "ops/forwarding.h"
#include "tests/engine/recording_engine.h"

namespace tandem {
namespace {

TEST(LocalWorkers, LoadEveryShareOnceAndStopAsOftenAsTheyAreTold) {
  const auto checkpoint = Checkpoint::open("tests/goldens/qwen3_moe");
  const ModelConfig model = read_config(*checkpoint);
  const EngineConfig config = resolve(small_engine("2A3F", 2), model, 1 << 20);
  std::int64_t heard = 0, expected = 0;
  LocalWorkers workers(*checkpoint, config, model, [&](std::int64_t bytes) { heard += bytes; });
  for (const ModelShare& share : shares(config.layout, model.experts))
    expected += total_bytes(measure_share(*checkpoint, share));
  EXPECT_EQ(heard, expected);
  EXPECT_EQ(workers.takers().size(), 2u);
  EXPECT_EQ(workers.ffn_stats().size(), 3u);
  EXPECT_GT(workers.weight_bytes(), 0);
  EXPECT_TRUE(workers.takers().front()->available());
  workers.start();
  workers.stop();
  workers.stop();
  const auto events = std::make_shared<EventStream>();
  workers.takers().front()->submit({.id = 1, .prompt = {1}}, events);
  EXPECT_EQ(events->pop(0)->finish, FinishReason::kCancelled);
}

// A device that fails when it is told to, and counts who waits for it then.
class FailingBackend final : public ForwardingBackend {
 public:
  struct Fate {
    std::atomic<bool> fails{false};
    std::atomic<int> waits{0};
  };
  FailingBackend(std::unique_ptr<Backend> inner, Fate& fate) : ForwardingBackend(std::move(inner)), fate_(fate) {}
  void synchronise() override {
    ForwardingBackend::synchronise();
    if (!fate_.fails) return;
    ++fate_.waits;
    throw Error(ErrorCode::kInternal, "the device has failed");
  }

 private:
  Fate& fate_;
};

TEST(LocalWorkers, WaitForTheirDevicesAtTheEndAndAFailedOneIsAnEndToo) {
  const auto checkpoint = Checkpoint::open("tests/goldens/qwen3_moe");
  FailingBackend::Fate fate;
  EngineConfig config = small_engine("1A2F");
  config.wrap_backend = [&](std::unique_ptr<Backend> inner) {
    return std::make_unique<FailingBackend>(std::move(inner), fate);
  };
  const ModelConfig model = read_config(*checkpoint);
  config = resolve(config, model, 1 << 20);
  LocalWorkers workers(*checkpoint, config, model, [](std::int64_t) {});
  workers.start();
  const auto events = std::make_shared<EventStream>();
  workers.takers().front()->submit({.id = 1, .prompt = {1, 2, 3}, .new_tokens_max = 2}, events);
  while (events->pop(1'000'000'000)->finish == FinishReason::kNone) continue;
  fate.fails = true;
  workers.stop();
  EXPECT_EQ(fate.waits, 3);
}

}  // namespace
}  // namespace tandem
