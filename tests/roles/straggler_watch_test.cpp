// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/straggler_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tandem {
namespace {

using testing::HasSubstr;

// Of a worker in a window: milliseconds of a step.
struct Pace {
  double busy = 1, wait = 4;
  std::int64_t steps = 100, rows = 800;
};

class StragglerWatchTest : public testing::Test {
 protected:
  void make(std::int32_t attention, std::int32_t ffn, double factor = 5) {
    watch_.emplace(attention, attention + ffn, factor, kSecond);
    totals_.assign(static_cast<std::size_t>(attention + ffn), {});
    watch_->begin(std::vector<bool>(totals_.size(), true), now_);
    for (std::size_t rank = 0; rank < totals_.size(); ++rank) watch_->take(static_cast<std::int32_t>(rank), {});
  }
  void pass(const std::vector<Pace>& paces) {
    for (std::size_t rank = 0; rank < paces.size(); ++rank) {
      const Pace& pace = paces[rank];
      Report& total = totals_[rank];
      total.steps += pace.steps;
      total.rows += pace.rows;
      total.busy_ns += static_cast<std::int64_t>(pace.busy * 1e6 * static_cast<double>(pace.steps));
      total.wait_ns += static_cast<std::int64_t>(pace.wait * 1e6 * static_cast<double>(pace.steps));
      watch_->take(static_cast<std::int32_t>(rank), total);
    }
    now_ += kSecond;
    watch_->look(now_);
  }
  std::int32_t slow() const { return watch_->slow() ? watch_->slow()->rank : kNobody; }

  static constexpr std::int32_t kNobody = -2, kLinks = -1;
  std::optional<StragglerWatch> watch_;
  std::vector<Report> totals_;
  Nanoseconds now_ = 5 * kSecond;
};

TEST_F(StragglerWatchTest, FindsTheFfnWorkerThatComputesTenTimesAsLongAsTheOthers) {
  make(1, 3);
  pass({{}, {}, {}, {}});
  const std::vector<Pace> paces{{1, 13}, {2, 9}, {20, 0.5}, {2, 9}};
  EXPECT_FALSE(watch_->look(now_ + kSecond / 2));
  pass(paces);
  EXPECT_EQ(slow(), kNobody);  // once is not enough
  pass(paces);
  ASSERT_EQ(slow(), 2);
  EXPECT_EQ(watch_->slow()->why, "computes 20.00 ms a step, 2.00 ms is usual, and waits 0.50 ms");
  pass({{}, {}, {}, {}});
  EXPECT_EQ(slow(), kNobody);
}

TEST_F(StragglerWatchTest, FindsAnAttentionWorker) {
  make(2, 1);
  for (int i = 0; i < 2; ++i) pass({{2, 30}, {30, 2}, {1, 31}});
  EXPECT_EQ(slow(), 1);
}

TEST_F(StragglerWatchTest, WhoComputesLongForManyRowsIsNotSlow) {
  make(2, 1);
  for (int i = 0; i < 3; ++i) pass({{2, 30, 100, 800}, {30, 2, 100, 25'000}, {}});
  EXPECT_EQ(slow(), kNobody);
}

TEST_F(StragglerWatchTest, NorForAFewRowsInAShortTime) {
  make(1, 2);
  for (int i = 0; i < 3; ++i) pass({{}, {2, 1, 100, 8'000}, {2, 1, 100, 100}});
  EXPECT_EQ(slow(), kNobody);
}

TEST_F(StragglerWatchTest, WhoWaitsLongerThanTheOthersIsNotTheSlowOne) {
  make(1, 2);
  for (int i = 0; i < 3; ++i) pass({{}, {2, 50}, {20, 70}});
  EXPECT_EQ(slow(), kNobody);
}

TEST_F(StragglerWatchTest, WhatIsLessThanAMillisecondIsNoise) {
  make(1, 2);
  for (int i = 0; i < 3; ++i) pass({{}, {.01, 1}, {.5, .01}});
  EXPECT_EQ(slow(), kNobody);
}

// The best it has shown, which a slow window does not change.
TEST_F(StragglerWatchTest, AnFfnWorkerThatIsAloneIsMeasuredByItself) {
  make(1, 1);
  pass({{1, 3}, {2, 2}});
  pass({{1, 4}, {3, 2}});
  for (int i = 0; i < 5; ++i) pass({{1, 30}, {25, 2}});
  EXPECT_EQ(slow(), 1);
  EXPECT_THAT(watch_->slow()->why, HasSubstr("2.00 ms is usual"));
}

// One stream, a prompt, eight streams: each window costs what it costs.
TEST_F(StragglerWatchTest, WhatAloneItIsMeasuredByHasAsManyRows) {
  make(1, 1);
  pass({{}, {1, 3, 100, 100}});
  pass({{}, {25, 3, 100, 51'200}});
  for (int i = 0; i < 3; ++i) pass({{}, {6, 3, 100, 800}});
  EXPECT_EQ(slow(), kNobody);
  for (int i = 0; i < 2; ++i) pass({{}, {40, 3, 100, 800}});
  EXPECT_EQ(slow(), 1);
}

TEST_F(StragglerWatchTest, CountsMayBeAnything) {
  make(1, 2);
  for (const std::int64_t count : {INT64_MAX, INT64_MIN, std::int64_t{0}}) {
    for (std::int32_t rank = 0; rank < 3; ++rank)
      watch_->take(rank, {.steps = count, .rows = ~count, .busy_ns = count, .wait_ns = count});
    now_ += 20 * kSecond;
    watch_->look(now_);
  }
}

// Contexts grow, and cost it more.
TEST_F(StragglerWatchTest, AnAttentionWorkerThatIsAloneIsNotMeasured) {
  make(1, 2);
  pass({{1, 3}, {}, {}});
  for (int i = 0; i < 3; ++i) pass({{50, 3}, {}, {}});
  EXPECT_EQ(slow(), kNobody);
}

TEST_F(StragglerWatchTest, WhereNobodyComputesItIsTheLinks) {
  make(2, 1);
  pass({{1, 3}, {1, 4}, {2, 2}});
  for (int i = 0; i < 2; ++i) pass({{1, 40}, {1, 50}, {2, 45}});
  ASSERT_EQ(slow(), kLinks);
  EXPECT_EQ(watch_->slow()->why,
            "attention workers wait 50.00 ms a step, 4.00 ms before, and FFN workers compute 2.00 ms: the links, or a "
            "host that gives a worker no time");
}

TEST_F(StragglerWatchTest, LongWaitsForFfnWorkersThatComputeAreNotTheLinks) {
  make(1, 1);
  pass({{1, 3}, {2, 2}});
  for (int i = 0; i < 3; ++i) pass({{1, 40}, {9, 1}});  // many more rows
  EXPECT_EQ(slow(), kNobody);
}

TEST_F(StragglerWatchTest, WindowsLastUntilThereAreEnoughSteps) {
  make(1, 2);
  const std::vector<Pace> slow_steps{{50, 350, 4, 32}, {10, 390, 4, 32}, {300, 100, 4, 32}};
  for (int i = 0; i < 5; ++i) {
    pass(slow_steps);
    EXPECT_EQ(slow(), kNobody);
  }
  pass(slow_steps);  // the second one ends
  EXPECT_EQ(slow(), 2);
}

TEST_F(StragglerWatchTest, OfWhoIsIdleOrDoesNotTakePartNothingIsSaid) {
  make(3, 1);
  watch_->begin({true, true, false, true}, now_);
  for (std::int32_t rank : {0, 1, 3}) watch_->take(rank, {});
  for (int i = 0; i < 3; ++i) pass({{2, 1}, {90, 1, 0, 0}, {90, 1}, {}});
  EXPECT_EQ(slow(), kNobody);
}

TEST_F(StragglerWatchTest, AnotherSuspectBeginsAnew) {
  make(1, 2);
  pass({{}, {20, 1}, {2, 9}});
  pass({{}, {2, 9}, {20, 1}});
  EXPECT_EQ(slow(), kNobody);
  pass({{}, {2, 9}, {20, 1}});
  EXPECT_EQ(slow(), 2);
  watch_->begin({true, true, true}, now_);  // a new epoch
  EXPECT_EQ(slow(), kNobody);
}

TEST_F(StragglerWatchTest, AFactorOfNoneFindsNobody) {
  make(1, 2, 0);
  for (int i = 0; i < 3; ++i) pass({{}, {2, 1}, {90, 1}});
  EXPECT_EQ(slow(), kNobody);
}

}  // namespace
}  // namespace tandem
