// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/settings/gpu_places.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/settings/backends.h"
#include "model/model.h"
#include "model/step3_vision.h"
#include "ops/cuda/device.h"
#include "tests/base/error_of.h"

namespace tandem {
namespace {

using Gpus = std::vector<std::int32_t>;

EngineConfig on_gpus(const char* layout, Gpus attention, Gpus ffn) {
  EngineConfig config;
  config.backend = "cuda";
  config.layout = parse_layout(layout);
  config.attention_gpus = std::move(attention);
  config.ffn_gpus = std::move(ffn);
  return config;
}

Gpus places(const EngineConfig& config) {
  Gpus gpus;
  for (PeerRank rank = 0; rank < config.layout.workers(); ++rank) gpus.push_back(gpu_of(config, rank));
  return gpus;
}

TEST(GpuPlaces, WorkersOfAKindTakeTheirGpusInTurn) {
  EXPECT_EQ(places(on_gpus("2A2F", {}, {})), (Gpus{0, 0, 0, 0}));
  EXPECT_EQ(places(on_gpus("2A2F", {0}, {1})), (Gpus{0, 0, 1, 1}));
  EXPECT_EQ(places(on_gpus("3A2F", {0, 2}, {1})), (Gpus{0, 2, 0, 1, 1}));
  EXPECT_EQ(places(on_gpus("1A3F", {4}, {1, 2})), (Gpus{4, 1, 2, 1}));
  EXPECT_EQ(places(on_gpus("2A2F", {3, 5}, {})), (Gpus{3, 5, 3, 5})) << "FFN workers where attention workers are";
  EXPECT_EQ(places(on_gpus("1A1F", {}, {1})), (Gpus{0, 1}));
  EXPECT_EQ(places(on_gpus("local", {1}, {})), (Gpus{1}));
}

TEST(GpuPlaces, AreTold) {
  EXPECT_EQ(describe_gpus(on_gpus("2A1F", {0}, {1})), "A0, A1 on GPU 0; F0 on GPU 1");
  EXPECT_EQ(describe_gpus(on_gpus("2A1F", {1, 0}, {})), "A1 on GPU 0; A0, F0 on GPU 1");
  EXPECT_EQ(describe_gpus(on_gpus("local", {}, {})), "A and F on GPU 0");
}

TEST(GpuPlaces, WhatCannotBeIsRefusedWithItsFlag) {
  const auto refusal = [](const EngineConfig& config) {
    const Error error = error_of([&] { check_gpus(config); });
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.message();
  };
  EngineConfig without = on_gpus("1A1F", {}, {1});
  without.backend = "cpu";
  EXPECT_EQ(refusal(without), "--gpu-f 1: device cpu runs on no GPU (--device)");
  EXPECT_EQ(refusal(on_gpus("1A1F", {0, 1}, {})),
            "--gpu-a 0,1: layout 1A1F has 1 attention workers, GPUs are given for 2 (--layout)");
  EXPECT_EQ(refusal(on_gpus("local", {0}, {1})),
            "--gpu-f 1: layout local has 0 FFN workers, GPUs are given for 1 (--layout)");
  EXPECT_EQ(refusal(on_gpus("1A1F", {-1}, {})), "--gpu-a -1: GPUs are numbered from 0");
  check_gpus(on_gpus("2A3F", {0, 1}, {0, 1, 2}));
}

TEST(GpuPlaces, AreFittedToALayoutThatHasFewerWorkers) {
  EngineConfig config = on_gpus("1A1F", {2, 3}, {4, 5});
  fit_gpus(config);
  EXPECT_EQ(config.attention_gpus, Gpus{2});
  EXPECT_EQ(config.ffn_gpus, Gpus{4});
  config.layout = {};
  fit_gpus(config);
  EXPECT_EQ(config.attention_gpus, Gpus{2});
  EXPECT_EQ(config.ffn_gpus, Gpus{});
  check_gpus(config);
}

TEST(GpuPlaces, TheMemoryOfEachGpuHasItsWorkersWeights) {
  const auto checkpoint = Checkpoint::open("tests/goldens/qwen3_moe");
  const ModelConfig model = read_config(*checkpoint);
  const auto bytes = [&](const char* layout, std::size_t share) {
    return total_bytes(measure_share(*checkpoint, shares(parse_layout(layout), model.experts)[share]));
  };
  const std::int64_t attention = bytes("2A2F", 0), f0 = bytes("2A2F", 1), f1 = bytes("2A2F", 2);
  ASSERT_GT(attention, 0);
  ASSERT_GT(f0, 0);

  std::vector<MemoryUse> uses = memory_uses(on_gpus("2A2F", {0}, {1}), *checkpoint, model);
  ASSERT_EQ(uses.size(), 2u);
  EXPECT_EQ(uses[0].gpu, 0);
  EXPECT_EQ(uses[0].weight_bytes, attention) << "two workers share one copy";
  EXPECT_EQ(uses[0].attention_workers, 2);
  EXPECT_EQ(uses[1].gpu, 1);
  EXPECT_EQ(uses[1].weight_bytes, f0 + f1);
  EXPECT_EQ(uses[1].attention_workers, 0);

  const EngineConfig apart = on_gpus("2A2F", {0, 3}, {3});
  uses = memory_uses(apart, *checkpoint, model);
  ASSERT_EQ(uses.size(), 2u);
  EXPECT_EQ(uses[0].weight_bytes, attention);
  EXPECT_EQ(uses[0].attention_workers, 1);
  EXPECT_EQ(uses[1].gpu, 3);
  EXPECT_EQ(uses[1].weight_bytes, attention + f0 + f1);
  EXPECT_EQ(uses[1].attention_workers, 1);
  EXPECT_EQ(attention_copies(apart), 2);
  EXPECT_EQ(attention_copies(on_gpus("2A2F", {0}, {3})), 1);

  EngineConfig cpu;
  cpu.layout = parse_layout("2A2F");
  uses = memory_uses(cpu, *checkpoint, model);
  ASSERT_EQ(uses.size(), 1u);
  EXPECT_EQ(uses[0].weight_bytes, static_cast<std::int64_t>(checkpoint->tensor_bytes()));
  EXPECT_EQ(uses[0].attention_workers, 2);
}

TEST(GpuPlaces, TheTowerIsBesideTheFirstAttentionWorkerOrOnAGpuOfItsOwn) {
  const auto checkpoint = Checkpoint::open("tests/goldens/step3_vl");
  const ModelConfig model = read_config(*checkpoint);
  const std::int64_t tower = vision_memory_bytes(*checkpoint);
  EXPECT_GT(tower, total_bytes(measure_vision(*checkpoint)));
  EngineConfig config = on_gpus("1A1F", {2}, {3});
  config.vision = false;
  const std::vector<MemoryUse> blind = memory_uses(config, *checkpoint, model);
  config.vision = true;
  EXPECT_EQ(vision_gpu(config), 2);
  std::vector<MemoryUse> uses = memory_uses(config, *checkpoint, model);
  ASSERT_EQ(uses.size(), 2u);
  EXPECT_EQ(uses[0].weight_bytes, blind[0].weight_bytes + tower);
  EXPECT_EQ(uses[1].weight_bytes, blind[1].weight_bytes);
  config.vision_gpu = 5;
  check_gpus(config);
  uses = memory_uses(config, *checkpoint, model);
  ASSERT_EQ(uses.size(), 3u);
  EXPECT_EQ(uses[0].weight_bytes, blind[0].weight_bytes);
  EXPECT_EQ(uses[2].gpu, 5);
  EXPECT_EQ(uses[2].weight_bytes, tower);
  EXPECT_EQ(uses[2].attention_workers, 0);
}

// In front of a deployment the tower is where the front says, whatever the workers run on.
TEST(GpuPlaces, TheTowersDeviceMayBeAnother) {
  EngineConfig config = on_gpus("1A1F", {}, {});
  EXPECT_EQ(vision_backend(config), "cuda");
  config.vision_backend = "cpu";
  EXPECT_EQ(vision_backend(config), "cpu");
  check_gpus(config);
  config.vision_gpu = 1;
  EXPECT_EQ(error_of([&] { check_gpus(config); }).message(), "--gpu-vision 1: device cpu runs on no GPU (--device)");
}

TEST(GpuPlaces, AGpuThatTheMachineDoesNotHaveIsNamed) {
  const cuda::DeviceFacts facts = cuda::look_at_device();
  EXPECT_EQ(backend_memory_bytes("cuda", std::max(facts.devices, 1)), std::nullopt);
  const Error error = error_of([&] { make_backend("cuda", "auto", 1, std::max(facts.devices, 1)); });
  if (facts.devices == 0) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    return;
  }
  EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(error.message(), testing::StartsWith("there is no GPU " + std::to_string(facts.devices)));
}

}  // namespace
}  // namespace tandem
