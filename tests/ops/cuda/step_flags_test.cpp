// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Recorded steps of two backends that wait for each other, on one GPU and on two.
#include "tensor/step_flags.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <vector>

#include "ops/cuda/cuda_backend.h"
#include "ops/cuda/device.h"

namespace tandem {
namespace {

constexpr Nanoseconds kPatience = 300 * kMillisecond;

// Ping adds 1 to a number and hands it over, pong doubles it and hands it back, twice a step.
class StepFlagsTest : public testing::TestWithParam<int> {  // GPUs
 protected:
  struct Side {
    std::unique_ptr<Backend> backend;
    std::unique_ptr<StepFlags> flags;
    Buffer number;  // f32 [8]
  };

  void SetUp() override {
    const cuda::DeviceFacts facts = cuda::look_at_device();
    if (const std::string reason = cuda::why_unusable(facts); !reason.empty()) GTEST_SKIP() << reason;
    if (facts.devices < GetParam()) GTEST_SKIP() << "there is one GPU";
    for (Side* side : {&ping_, &pong_}) {
      side->backend = make_cuda_backend(side == &ping_ ? 0 : GetParam() - 1);
      side->flags = side->backend->make_step_flags(2, kPatience);
      side->number = side->backend->allocate(sizeof(float) * 8);
    }
    ASSERT_TRUE(ping_.flags->connect(*pong_.flags));
    EXPECT_EQ(ping_.flags->same_memory(*pong_.flags), GetParam() == 1);
    one_ = ping_.backend->allocate(sizeof(float) * 8);
    const std::vector<float> ones(8, 1);
    ping_.backend->copy(one_.data(), ones.data(), one_.bytes());
    ping_.backend->synchronise();
  }
  static Tensor tensor(const Buffer& buffer) { return {buffer.data(), DType::kF32, {1, 8}}; }

  void add_one() {
    ping_.backend->run(CombineExperts{.out = tensor(ping_.number),
                                      .slot_rows = {},
                                      .top_k = 0,
                                      .partials = std::vector{tensor(ping_.number), tensor(one_)},
                                      .slice_counts = std::vector<std::int32_t>{4, 4}});
  }
  void double_it() {
    pong_.backend->copy(pong_.number.data(), ping_.number.data(), pong_.number.bytes());
    pong_.backend->run(CombineExperts{.out = tensor(pong_.number),
                                      .slot_rows = {},
                                      .top_k = 0,
                                      .partials = std::vector{tensor(pong_.number), tensor(pong_.number)},
                                      .slice_counts = std::vector<std::int32_t>{4, 4}});
  }
  void prepare() {
    add_one();  // what has run before can be recorded
    double_it();
    for (Side* side : {&ping_, &pong_}) side->backend->synchronise();
    EXPECT_TRUE(ping_.backend->prepare(kKey, [&] {
      for (const std::int32_t flag : {0, 1}) {
        add_one();
        ping_.flags->raise(flag);
        ping_.flags->wait(flag);
        ping_.backend->copy(ping_.number.data(), pong_.number.data(), ping_.number.bytes());
      }
    }));
    EXPECT_TRUE(pong_.backend->prepare(kKey, [&] {
      for (const std::int32_t flag : {0, 1}) {
        pong_.flags->wait(flag);
        double_it();
        pong_.flags->raise(flag);
      }
    }));
    EXPECT_FALSE(pong_.backend->prepare(kKey, [] { FAIL() << "it is known"; }));
    set(0);
  }
  void launch(Side& side, std::uint64_t epoch) {
    side.flags->begin(epoch);
    side.backend->launch(kKey);
  }
  void set(float value) {
    const std::vector<float> values(8, value);
    ping_.backend->copy(ping_.number.data(), values.data(), ping_.number.bytes());
    ping_.backend->synchronise();
  }
  float number() {
    std::vector<float> values(8);
    ping_.backend->copy(values.data(), ping_.number.data(), ping_.number.bytes());
    ping_.backend->synchronise();
    return values[5];
  }
  static float after(float x) { return 2 * (2 * (x + 1) + 1); }

  static constexpr std::int64_t kKey[] = {7};
  Side ping_, pong_;
  Buffer one_;
};

TEST_P(StepFlagsTest, RecordedStepsOfTwoBackendsGoOnOneBehindTheOther) {
  prepare();
  float expected = 0;
  for (std::uint64_t epoch = 1; epoch <= 12; ++epoch) {
    for (Side* side : epoch % 2 == 0 ? std::array{&ping_, &pong_} : std::array{&pong_, &ping_}) launch(*side, epoch);
    expected = after(expected);
    if (epoch % 4 == 0) {  // several are under way in between
      EXPECT_EQ(number(), expected) << "epoch " << epoch;
      EXPECT_FALSE(ping_.flags->poisoned(1));
    }
  }
  pong_.backend->synchronise();
  EXPECT_FALSE(pong_.flags->poisoned(1));
}

TEST_P(StepFlagsTest, WhoWaitsTooLongIsFreedAndALaterEpochIsWhole) {
  prepare();
  launch(ping_, 1);
  launch(pong_, 1);
  EXPECT_EQ(number(), after(0));
  const auto begin = std::chrono::steady_clock::now();
  launch(ping_, 2);
  ping_.backend->synchronise();
  const auto waited = std::chrono::steady_clock::now() - begin;
  EXPECT_GE(waited, std::chrono::nanoseconds(kPatience));
  EXPECT_LT(waited, 2 * std::chrono::nanoseconds(kPatience)) << "the second wait finds the epoch poisoned";
  EXPECT_TRUE(ping_.flags->poisoned(2));
  EXPECT_FALSE(ping_.flags->poisoned(3));
  launch(pong_, 2);  // too late: it ends at once, and what it raises is of the past
  set(5);
  launch(ping_, 3);
  launch(pong_, 3);
  EXPECT_EQ(number(), after(5));
  EXPECT_FALSE(ping_.flags->poisoned(3));
  pong_.backend->synchronise();
  EXPECT_TRUE(pong_.flags->poisoned(2));
  EXPECT_FALSE(pong_.flags->poisoned(3));
  launch(pong_, 4);  // and the other way round
  pong_.backend->synchronise();
  EXPECT_TRUE(pong_.flags->poisoned(4));
  launch(ping_, 4);
  ping_.backend->synchronise();
  EXPECT_TRUE(ping_.flags->poisoned(4));
}

INSTANTIATE_TEST_SUITE_P(Gpus, StepFlagsTest, testing::Values(1, 2));

}  // namespace
}  // namespace tandem
