// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "synthetic/checkpoint_maker.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>

#include "model/model.h"
#include "synthetic/published_config.h"
#include "tests/base/error_of.h"
#include "tests/checkpoint/temporary_folder.h"

namespace tandem {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

CheckpointPlan small_plan(const std::string& name, std::uint64_t shard_bytes = kShardBytes) {
  return plan_checkpoint(resize(find_config(name), {.scale = 0.02, .layers = 2, .experts = 8, .vocab = 600}),
                         shard_bytes);
}

// Opening checks the file, measure_parts checks every tensor against what the model wants.
TEST(CheckpointMaker, WhatItWritesIsACheckpointOfItsModel) {
  for (const PublishedConfig& config : published_configs()) {
    SCOPED_TRACE(config.name);
    const TemporaryFolder folder;
    const CheckpointPlan plan = small_plan(std::string(config.name));
    write_checkpoint(plan, folder.path("model"), {.threads = 2});
    const auto checkpoint = Checkpoint::open(folder.path("model"));
    EXPECT_NO_THROW(measure_parts(*checkpoint));
    EXPECT_EQ(checkpoint->tensor_bytes(), plan.bytes);
    const bool fp8 = std::ranges::any_of(checkpoint->tensors(), [](const auto& t) { return t.type_name == "F8_E4M3"; });
    EXPECT_EQ(fp8, config.name == "step3_fp8" || config.name == "deepseek_v3");
    EXPECT_FALSE(fs::exists(folder.path("model.partial")));
  }
}

TEST(CheckpointMaker, ShardsAndThreadsChangeNoTensor) {
  const TemporaryFolder folder;
  write_checkpoint(small_plan("step3_fp8"), folder.path("whole"), {.threads = 1});
  const CheckpointPlan parts = small_plan("step3_fp8", 200'000);
  EXPECT_GT(parts.shards.size(), 3u);
  std::int64_t told = 0;
  write_checkpoint(parts, folder.path("parts"), {.threads = 3, .listener = [&](std::int64_t bytes) { told += bytes; }});
  EXPECT_EQ(told, static_cast<std::int64_t>(parts.bytes));
  const auto whole = Checkpoint::open(folder.path("whole")), sharded = Checkpoint::open(folder.path("parts"));
  ASSERT_EQ(whole->tensors().size(), sharded->tensors().size());
  for (const TensorInfo& info : whole->tensors())
    EXPECT_TRUE(std::ranges::equal(whole->data(info), sharded->data(*sharded->find(info.name)))) << info.name;
}

TEST(CheckpointMaker, OverwritesNothing) {
  const TemporaryFolder folder;
  const CheckpointPlan plan = small_plan("llama");
  fs::create_directory(folder.path("empty"));
  EXPECT_NO_THROW(write_checkpoint(plan, folder.path("empty"), {}));
  EXPECT_THAT(error_of([&] { write_checkpoint(plan, folder.path("empty"), {}); }).message(),
              HasSubstr("nothing is overwritten"));
  folder.write("file", "text");
  EXPECT_EQ(error_of([&] { write_checkpoint(plan, folder.path("file"), {}); }).code(), ErrorCode::kInvalidArgument);
  fs::create_directory(folder.path("ended.partial"));
  EXPECT_THAT(error_of([&] { write_checkpoint(plan, folder.path("ended"), {}); }).message(), HasSubstr("remove it"));
}

TEST(CheckpointMaker, SaysWhatADiskHasNoRoomFor) {
  const TemporaryFolder folder;
  CheckpointPlan plan = small_plan("llama");
  plan.bytes = 1ull << 60;
  const Error error = error_of([&] { write_checkpoint(plan, folder.path("model"), {}); });
  EXPECT_EQ(error.code(), ErrorCode::kOutOfResources);
  EXPECT_THAT(error.message(), HasSubstr("takes 1152921504.674 GB, the disk has"));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(CheckpointMaker, WhatFailsLeavesNothing) {
  const TemporaryFolder folder;
  const auto stop = [](std::int64_t) { throw Error(ErrorCode::kCancelled, "enough"); };
  EXPECT_EQ(error_of([&] {
              write_checkpoint(small_plan("llama"), folder.path("model"), {.threads = 2, .listener = stop});
            }).code(),
            ErrorCode::kCancelled);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(CheckpointMaker, FindsTheScaleOfASize) {
  for (const double gigabytes : {0.3, 5.0, 400.0}) {
    const auto bytes = static_cast<std::uint64_t>(gigabytes * 1e9);
    const OrderedJson config = resize_to_bytes(find_config("step3"), {}, bytes);
    const CheckpointPlan plan = plan_checkpoint(config);
    EXPECT_LE(plan.bytes, bytes);
    EXPECT_GT(plan.bytes, bytes * 8 / 10) << gigabytes;
  }
  const OrderedJson wide = resize_to_bytes(find_config("llama"), {.layers = 2}, 1'000'000'000);
  EXPECT_EQ(wide["num_hidden_layers"], 2);
  EXPECT_THAT(error_of([] { resize_to_bytes(find_config("llama"), {}, 1000); }).message(),
              HasSubstr("0.000001 are asked for"));
}

}  // namespace
}  // namespace tandem
