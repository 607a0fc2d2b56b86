// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/operator_times.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

TEST(OperatorTimes, GathersByOperatorAndShape) {
  OperatorTimes times;
  for (const Nanoseconds took : {5'000, 1'000, 3'000})
    times.add({"matmul", 16, 40, 64, {.flops = took, .bytes_read = 600, .bytes_written = 60}, 100, 100 + took});
  times.add({"matmul", 1, 40, 64, {}, 0, 10'000});
  times.add({"rms_norm", 1, 0, 0, {}, 0, 20});

  const std::vector<OperatorTime> taken = times.take();
  ASSERT_EQ(taken.size(), 3u);
  EXPECT_EQ(taken[0].name, "matmul") << "the most expensive one first";
  EXPECT_EQ(taken[0].shape, "1 row, 64 x 40");
  EXPECT_EQ(taken[1].shape, "16 rows, 64 x 40");
  EXPECT_EQ(taken[1].rows, 16);
  EXPECT_EQ(taken[1].calls, 3);
  EXPECT_DOUBLE_EQ(taken[1].seconds, 3e-6);
  EXPECT_DOUBLE_EQ(taken[1].seconds_total, 9e-6);
  EXPECT_DOUBLE_EQ(taken[1].bytes, 660);
  EXPECT_DOUBLE_EQ(taken[1].flops, 3'000);
  EXPECT_EQ(taken[2].shape, "1 row");
  EXPECT_TRUE(times.take().empty()) << "each is told once";
}

}  // namespace
}  // namespace tandem
