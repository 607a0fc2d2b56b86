// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/measured_steps.h"

#include <gtest/gtest.h>

#include <cmath>

#include "slice/slice.h"

namespace tandem {
namespace {

struct Finished {
  StepTimes times;
  std::size_t steps = 0;
};

// As a slice does it: a step is told when some more have been launched.
template <class TimeOf>
Finished run(int steps, double warm_up_seconds, TimeOf us_of, std::size_t ahead = kStepsAhead) {
  MeasuredSteps measured(steps, warm_up_seconds);
  std::size_t launched = 0, told = 0;
  for (; measured.wants_more_than(launched); ++launched)
    if (launched >= ahead) measured.add(us_of(told++));
  while (told < launched) measured.add(us_of(told++));
  return {.times = measured.times(), .steps = launched};
}

TEST(MeasuredSteps, BeginWhenStepsTakeAsLongAsThoseBefore) {
  // From 35 to 45 ms, with a second until two thirds of that are reached.
  const auto us_of = [](std::size_t step) { return 45'000 - 10'000 * std::exp(-static_cast<double>(step) / 25); };
  const Finished r = run(60, 10, us_of);
  EXPECT_TRUE(r.times.warm_up.settled);
  EXPECT_GT(r.times.warm_up.seconds, 4);
  EXPECT_LT(r.times.warm_up.seconds, 8);
  ASSERT_EQ(r.times.all.size(), 60u);
  EXPECT_EQ(r.times.all.front(), us_of(static_cast<std::size_t>(r.times.warm_up.steps)));
  EXPECT_LT(r.times.p99 / r.times.median, 1.01);
  EXPECT_EQ(r.steps, static_cast<std::size_t>(r.times.warm_up.steps) + 61);
}

TEST(MeasuredSteps, OfASteadyRunComeAfterThreeSecondsOrThirds) {
  const Finished r = run(10, 10, [](std::size_t) { return 10'000.; });
  EXPECT_TRUE(r.times.warm_up.settled);
  EXPECT_EQ(r.times.warm_up.steps, 300);
  EXPECT_NEAR(r.times.warm_up.seconds, 3, 1e-9);
  const Finished shorter = run(10, 1, [](std::size_t) { return 10'000.; });
  EXPECT_TRUE(shorter.times.warm_up.settled);
  EXPECT_EQ(shorter.times.warm_up.steps, 102);
}

TEST(MeasuredSteps, OneSlowStepOfTenIsNoUnrest) {
  const Finished r = run(10, 10, [](std::size_t step) { return step % 10 == 9 ? 15'000. : 10'000.; });
  EXPECT_TRUE(r.times.warm_up.settled);
  EXPECT_LT(r.times.warm_up.seconds, 3.1);
}

TEST(MeasuredSteps, ThatNeverSettleAreMeasuredWhenTheTimeIsOver) {
  const Finished r = run(20, 2, [](std::size_t step) { return 10'000 * std::pow(1.01, static_cast<double>(step)); });
  EXPECT_FALSE(r.times.warm_up.settled);
  EXPECT_GE(r.times.warm_up.seconds, 2);
  EXPECT_LT(r.times.warm_up.seconds, 2.7);
  EXPECT_EQ(r.times.all.size(), 20u);
}

TEST(MeasuredSteps, AreTheFirstWithoutAWarmUp) {
  const Finished r = run(5, 0, [](std::size_t step) { return 1'000. + static_cast<double>(step); });
  EXPECT_EQ(r.times.warm_up.steps, 0);
  EXPECT_EQ(r.times.all, (std::vector<double>{1000, 1001, 1002, 1003, 1004}));
  EXPECT_EQ(r.steps, 6u);
}

// So a trace that keeps as many more than it measures has stamps of all that were.
TEST(MeasuredSteps, AreAmongTheLastAsManyAndThoseOnTheirWay) {
  for (const int steps : {2, 3, 7, 8, 24})
    for (const double warm_up_seconds : {0., 1., 10.}) {
      const Finished r = run(steps, warm_up_seconds, [](std::size_t) { return 10'000.; });
      const std::size_t measured_end =
          static_cast<std::size_t>(r.times.warm_up.steps) + static_cast<std::size_t>(steps);
      EXPECT_GE(r.steps, measured_end) << steps;
      EXPECT_LE(r.steps, measured_end + kStepsAhead) << steps;
    }
}

// A step is nearly as long as a third, and longer than the whole time.
TEST(MeasuredSteps, LongStepsAreNotAWarmUpEach) {
  EXPECT_EQ(run(3, 1, [](std::size_t) { return 300'000.; }).times.warm_up.steps, 4);
  const Finished r = run(3, 1, [](std::size_t) { return 2e6; });
  EXPECT_EQ(r.times.warm_up.steps, 1);
  EXPECT_FALSE(r.times.warm_up.settled);
}

}  // namespace
}  // namespace tandem
