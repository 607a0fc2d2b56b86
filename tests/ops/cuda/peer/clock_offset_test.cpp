// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/peer/clock_offset.h"

#include <gtest/gtest.h>

namespace tandem::cuda {
namespace {

TEST(ClockOffset, TheShortestRoundTells) {
  // The second clock is 5,000 ahead. One round was held up on its way back, another on its way there.
  const ClockOffset offset = offset_of({{1'000, 6'300, 3'000}, {10'000, 15'610, 11'200}, {20'000, 25'900, 21'800}});
  EXPECT_EQ(offset.offset_ns, 15'610 - 10'600);
  EXPECT_EQ(offset.error_ns, 600);
  EXPECT_EQ(offset.at, 10'600);
  EXPECT_LE(std::abs(offset.offset_ns - 5'000), offset.error_ns);
}

TEST(ClockOffset, ASecondClockThatIsBehindHasANegativeOne) {
  EXPECT_EQ(offset_of({{1'000'000, 400, 1'000'800}}).offset_ns, 400 - 1'000'400);
}

TEST(ClockOffset, ClocksThatRunApartAreFollowed) {
  const ClockOffset before{.at = 1'000'000, .offset_ns = 2'000}, after{.at = 2'000'000, .offset_ns = 3'000};
  EXPECT_EQ(to_first_clock(1'002'000, before, after), 1'000'000);
  EXPECT_EQ(to_first_clock(2'003'000, before, after), 2'000'000);
  EXPECT_NEAR(static_cast<double>(to_first_clock(1'502'500, before, after)), 1'500'000, 2);
  EXPECT_EQ(to_first_clock(7'000, {}, {}), 7'000);  // nobody measured: one clock
}

}  // namespace
}  // namespace tandem::cuda
