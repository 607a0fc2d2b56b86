// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/local_workers.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace tandem
