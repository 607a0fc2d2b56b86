// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/hand_over_time.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "base/error.h"
#include "base/json.h"
#include "ops/cuda/device.h"

namespace tandem {
namespace {

using testing::HasSubstr;

// Of two launches of four rounds: 20, 22 and 24 us, a long way to the second launch, and 20, 22 and 60.
TEST(HandOverTime, IsHalfARoundWithinALaunch) {
  const HandOverTime time = hand_over_time({1'000, 21'000, 43'000, 67'000, 900'000, 920'000, 942'000, 1'002'000}, 4);
  EXPECT_DOUBLE_EQ(time.median, 11);
  EXPECT_DOUBLE_EQ(time.p99, 30);
}

HandOverReport report() {
  return {
      .link_bytes_per_second = 400e9,
      .times = {
          {.rows = RowsBy::kStores, .flags = cuda::FlagsBy::kThreads, .bytes = 1 << 20, .median = 6.25, .p99 = 7},
          {.rows = RowsBy::kCopyEngine, .flags = cuda::FlagsBy::kFrontEnds, .bytes = 4, .median = 20.5, .p99 = 24}}};
}

TEST(HandOverTime, IsToldInARowEach) {
  const std::string text = hand_over_text(report());
  EXPECT_THAT(text, HasSubstr("copies 400 GB/s one way"));
  EXPECT_THAT(text, HasSubstr("stores       threads       1048576        6.25    7.00    2.62\n"));
  EXPECT_THAT(text, HasSubstr("copy engine  front ends          4       20.50   24.00    0.00\n"));
}

TEST(HandOverTime, IsAnObjectALine) {
  std::istringstream lines(hand_over_json(report()));
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  const Json json = Json::parse(line);
  EXPECT_EQ(json.at("hand_over_bytes").get<int>(), 1 << 20);
  EXPECT_EQ(json.at("rows_by").get<std::string>(), "stores");
  EXPECT_DOUBLE_EQ(json.at("one_way_us").get<double>(), 6.25);
  EXPECT_DOUBLE_EQ(json.at("link_bytes_per_second").get<double>(), 400e9);
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_EQ(Json::parse(line).at("flags_by").get<std::string>(), "front ends");
  EXPECT_FALSE(std::getline(lines, line));
}

TEST(HandOverTime, WithoutAGpuItSaysWhatIsMissing) {
  const std::string missing = cuda::why_unusable(cuda::look_at_device());
  if (missing.empty()) GTEST_SKIP() << "there is a GPU";
  try {
    measure_hand_overs({});
    FAIL() << "a hand-over without a GPU";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
    EXPECT_EQ(error.what(), missing);
  }
}

class HandOverTimeOnTheGpu : public testing::Test {
 protected:
  void SetUp() override {
    const cuda::DeviceFacts gpu = cuda::look_at_device();
    if (const std::string missing = cuda::why_unusable(gpu); !missing.empty()) GTEST_SKIP() << missing;
    if (gpu.devices < 2) GTEST_SKIP() << "there is one GPU";
  }
};

// That rows arrive is looked at by measure_hand_overs itself. None is faster than the wire; a whole hand-over is never
// a millisecond.
TEST_F(HandOverTimeOnTheGpu, RowsArriveHoweverTheyAreBrought) {
  const HandOverReport measured = measure_hand_overs({.bytes = {4, 48, 8'208, 3 << 20}, .launches = 3});
  EXPECT_GT(measured.link_bytes_per_second, 1e9);
  ASSERT_EQ(measured.times.size(), 16u);
  for (const HandOverTime& time : measured.times) {
    EXPECT_GT(time.median * 1e-6, .8 * static_cast<double>(time.bytes) / measured.link_bytes_per_second);
    EXPECT_LT(time.median, 1000);
    EXPECT_GE(time.p99, time.median);
  }
}

TEST_F(HandOverTimeOnTheGpu, OneGpuHasNobodyToHandOverTo) {
  EXPECT_THROW(measure_hand_overs({.first_gpu = 1, .second_gpu = 1}), Error);
}

}  // namespace
}  // namespace tandem
