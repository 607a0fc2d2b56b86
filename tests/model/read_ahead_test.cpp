// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "model/read_ahead.h"

#include <gmock/gmock.h>

#include <chrono>

#include "tests/model/synthetic_checkpoint.h"

namespace tandem {
namespace {

// What the thread asked for, and a way to wait for it.
class Asked {
 public:
  void add(const Stretch& stretch) {
    std::lock_guard lock(mutex_);
    stretches_.push_back(stretch);
    bytes_ += static_cast<std::int64_t>(stretch.bytes);
    changed_.notify_all();
  }
  // False when a minute passes.
  bool wait_for(std::int64_t bytes) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::minutes(1), [&] { return bytes_ >= bytes; });
  }
  std::int64_t bytes() {
    std::lock_guard lock(mutex_);
    return bytes_;
  }
  std::vector<Stretch> stretches_;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::int64_t bytes_ = 0;
};

TEST(ReadAhead, StaysAheadByNoMoreThanItsLimit) {
  const TensorInfo tensor;
  constexpr std::uint64_t kBytes = 3 * kReadAheadBytes + 5;
  Asked asked;
  ReadAhead ahead({{&tensor, 0, kBytes}, {&tensor, kBytes, 7}}, [&](const Stretch& s) { asked.add(s); });
  ASSERT_TRUE(asked.wait_for(kReadAheadBytes));
  EXPECT_LT(asked.bytes(), kReadAheadBytes + kReadAheadPieceBytes);
  for (std::int64_t loaded = 0; loaded < static_cast<std::int64_t>(kBytes); loaded += kReadAheadBytes)
    ahead.advance(kReadAheadBytes);
  ASSERT_TRUE(asked.wait_for(static_cast<std::int64_t>(kBytes) + 7));
  std::uint64_t at = 0;
  for (const Stretch& stretch : asked.stretches_) {
    EXPECT_EQ(stretch.offset, at);
    EXPECT_LE(stretch.bytes, static_cast<std::uint64_t>(kReadAheadPieceBytes));
    at += stretch.bytes;
  }
  EXPECT_EQ(at, kBytes + 7);
}

TEST(ReadAhead, EndsWhileItWaits) {
  const TensorInfo tensor;
  Asked asked;
  {
    const ReadAhead ahead({{&tensor, 0, 1ull << 40}}, [&](const Stretch& s) { asked.add(s); });
    ASSERT_TRUE(asked.wait_for(kReadAheadBytes));
  }
  EXPECT_LT(asked.bytes(), kReadAheadBytes + kReadAheadPieceBytes);
}

// Of the reader's own count, so that asking keeps step with loading.
TEST(ReadAhead, OrderHasEveryByteThatALoaderCounts) {
  for (const bool fp8 : {false, true}) {
    Json config = step3_config();
    SyntheticTensors tensors = step3_tensors(config);
    if (fp8) make_block_fp8(config, tensors);
    const SyntheticCheckpoint checkpoint(config, tensors);
    WeightReader declared(*checkpoint);
    if (fp8) declared.accept_block_fp8();
    for (const char* name : {"gate_proj", "up_proj", "down_proj"}) {
      const std::string stacked = std::string("model.layers.1.moe.") + name + ".weight";
      declared.matrix(Part::kExperts, {{.name = stacked, .shape = checkpoint->find(stacked)->shape, .expert = 0}});
    }
    declared.vector(Part::kNorm, "model.norm.weight", 48);
    const ModelShare share{.attention = true, .ffn = true, .experts = {2, 4, 0, 8}};
    std::vector<std::string> names;
    std::uint64_t bytes = 0;
    for (const Stretch& stretch : reading_order(*checkpoint, declared, share)) {
      names.push_back(stretch.tensor->name);
      if (stretch.tensor->shape.rank == 3) bytes += stretch.bytes;
    }
    EXPECT_EQ(names.back(), "model.norm.weight");
    EXPECT_EQ(names.size(), 2 * (fp8 ? 6u : 3u) + 1) << "two experts, each in turn";
    for (const std::size_t i : {std::size_t{0}, names.size() / 2})
      EXPECT_EQ(names[i], "model.layers.1.moe.gate_proj.weight") << i;
    std::uint64_t expected = 0;
    for (const TensorInfo& info : checkpoint->tensors())
      if (info.shape.rank == 3) expected += info.bytes / 6 * 2;
    EXPECT_EQ(bytes, expected);
  }
}

}  // namespace
}  // namespace tandem
