// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/team_pace.h"

#include <gtest/gtest.h>

namespace tandem::cpu {
namespace {

constexpr Nanoseconds kRound = 50'000;

// Rounds of both, one waiting for the other for so much of each, until the window is over.
void run_window(TeamPace& pace, double waiting) {
  for (Nanoseconds at = 0; at < TeamPace::kWindow; at += kRound) {
    ASSERT_FALSE(pace.alone());
    pace.together(kRound, static_cast<Nanoseconds>(waiting * static_cast<double>(kRound)));
  }
}

void run_windows(TeamPace& pace, double waiting) {
  for (int i = 0; i < TeamPace::kWindows; ++i) run_window(pace, waiting);
}

// How long one goes on alone.
Nanoseconds time_alone(TeamPace& pace) {
  Nanoseconds time = 0;
  for (; pace.alone(); time += kRound) pace.by_one(kRound);
  return time;
}

TEST(TeamPace, StaysTogetherWhereSharesAreAboutEqual) {
  TeamPace pace;
  for (int i = 0; i < 20; ++i) run_window(pace, 0.3);
  EXPECT_FALSE(pace.alone());
}

TEST(TeamPace, LongWaitsNowAndThenAreNoReason) {
  TeamPace pace;
  for (int i = 0; i < 5; ++i) {
    run_window(pace, 0.6);
    run_window(pace, 0.6);
    run_window(pace, 0.4);
  }
  EXPECT_FALSE(pace.alone());
}

TEST(TeamPace, AFewLongRoundsSayNothing) {
  TeamPace pace;
  for (int i = 1; i < TeamPace::kWindowRounds; ++i) pace.together(100'000'000, 90'000'000);
  for (int i = 0; i < TeamPace::kWindows; ++i) run_window(pace, 0.1);
  EXPECT_FALSE(pace.alone());
}

TEST(TeamPace, TriesAgainLessAndLessOften) {
  TeamPace pace;
  for (Nanoseconds time = TeamPace::kAlone; time < TeamPace::kAloneMost; time *= 2) {
    run_windows(pace, 0.6);
    EXPECT_EQ(time_alone(pace), time);
  }
  for (int i = 0; i < 2; ++i) {
    run_windows(pace, 0.6);
    EXPECT_EQ(time_alone(pace), TeamPace::kAloneMost);
  }
}

TEST(TeamPace, ForgetsANeighbourThatHasGone) {
  TeamPace pace;
  for (int i = 0; i < 3; ++i) {
    run_windows(pace, 0.6);
    time_alone(pace);
  }
  run_window(pace, 0.1);
  EXPECT_FALSE(pace.alone());
  run_windows(pace, 0.6);
  EXPECT_EQ(time_alone(pace), TeamPace::kAlone);
}

}  // namespace
}  // namespace tandem::cpu
