// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sim/fleet/stage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace tandem {
namespace {

using testing::ElementsAre;

TEST(Stage, DoesThingsInTheOrderOfTheirTimesAndThenOfTheirComing) {
  Stage stage;
  std::vector<std::string> done;
  stage.at(20, [&] { done.push_back("late"); });
  stage.at(10, [&] {
    done.push_back("first");
    stage.at(5, [&] { done.push_back("at once, as that time is over"); });
  });
  stage.at(10, [&] { done.push_back("second"); });
  while (stage.step()) continue;
  EXPECT_THAT(done, ElementsAre("first", "second", "at once, as that time is over", "late"));
  EXPECT_EQ(stage.now(), 20);
}

TEST(Stage, AThreadRunsUntilItWaitsAndGoesOnWhenItIsTime) {
  Stage stage;
  StageProcess process(stage);
  std::vector<std::pair<std::string, Nanoseconds>> done;
  Actor actor(stage, process, [&] {
    done.emplace_back("begins", stage.now());
    Actor::current()->wait(100);
    done.emplace_back("goes on", stage.now());
  });
  EXPECT_TRUE(done.empty());
  stage.at(50, [&] { done.emplace_back("between", stage.now()); });
  while (stage.step()) continue;
  EXPECT_THAT(done, ElementsAre(std::pair("begins", 0), std::pair("between", 50), std::pair("goes on", 100)));
}

TEST(Stage, AWakeEndsAWaitAndOneBeforeItEndsTheNext) {
  Stage stage;
  StageProcess process(stage);
  std::vector<Nanoseconds> times;
  Actor actor(stage, process, [&] {
    for (int i = 0; i < 3; ++i) {
      Actor::current()->wait(1'000);
      times.push_back(stage.now());
      if (i == 0) Actor::current()->wake();
    }
  });
  stage.at(10, [&] { actor.wake(); });
  while (stage.step()) continue;
  EXPECT_THAT(times, ElementsAre(10, 10, 1'010));
}

TEST(Stage, WhatIsDueForAFrozenProcessWaits) {
  Stage stage;
  StageProcess frozen(stage), other(stage);
  std::vector<std::pair<char, Nanoseconds>> done;
  frozen.freeze();
  stage.at(10, [&] { done.emplace_back('f', stage.now()); }, &frozen);
  stage.at(10, [&] { done.emplace_back('o', stage.now()); }, &other);
  stage.at(500, [&] { frozen.thaw(); });
  while (stage.step()) continue;
  EXPECT_THAT(done, ElementsAre(std::pair('o', 10), std::pair('f', 500)));
}

TEST(Stage, AThreadThatIsToldToEndEndsWithoutMovingTime) {
  Stage stage;
  StageProcess process(stage);
  bool stop = false;
  int turns = 0;
  auto actor = std::make_unique<Actor>(stage, process, [&] {
    while (!stop) {
      ++turns;
      Actor::current()->wait(10);
    }
  });
  for (int i = 0; i < 3; ++i) stage.step();
  stop = true;
  actor.reset();
  EXPECT_EQ(turns, 3);
  const Nanoseconds then = stage.now();
  stage.step();  // its last wait, which is nobody's now
  EXPECT_EQ(turns, 3);
  EXPECT_EQ(then, 20);
}

}  // namespace
}  // namespace tandem
