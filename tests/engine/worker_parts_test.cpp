// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/worker_parts.h"

#include <gtest/gtest.h>

#include "engine/settings/engine_config.h"
#include "tests/engine/recording_engine.h"

namespace tandem {
namespace {

TEST(WorkerParts, FramesShowTheDeploymentOrWhatItIsMadeOf) {
  const ModelConfig model = read_config(*Checkpoint::open("tests/goldens/llama"));
  EngineConfig one = small_engine("1A1F"), two = small_engine("2A1F");
  EXPECT_NE(worker_config(one, model).deployment, worker_config(two, model).deployment);
  EXPECT_EQ(worker_config(one, model).deployment, worker_config(small_engine("1A1F"), model).deployment);
  one.deployment = two.deployment = 77;
  two.epoch = 3;
  EXPECT_EQ(worker_config(one, model).deployment, 77u);
  EXPECT_EQ(worker_config(two, model).frame_limits(model).deployment, 77u);
  EXPECT_EQ(worker_config(one, model).frame_limits(model).epoch, 0u);
  EXPECT_EQ(worker_config(two, model).frame_limits(model).epoch, 3u);
}

}  // namespace
}  // namespace tandem
