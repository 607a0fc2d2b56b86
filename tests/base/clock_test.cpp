// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/clock.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

TEST(RealClock, never_goes_back) {
  const RealClock clock;
  Nanoseconds before = clock.now();
  for (int i = 0; i < 1000; ++i) {
    const Nanoseconds now = clock.now();
    ASSERT_GE(now, before);
    before = now;
  }
}

TEST(VirtualClock, moves_when_told_and_only_forward) {
  VirtualClock clock;
  EXPECT_EQ(clock.now(), 0);
  clock.advance_to(100);
  clock.advance_to(50);
  EXPECT_EQ(clock.now(), 100);
}

}  // namespace
}  // namespace tandem
