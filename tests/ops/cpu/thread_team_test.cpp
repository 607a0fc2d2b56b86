// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/thread_team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <set>
#include <thread>
#include <vector>

namespace tandem::cpu {
namespace {

TEST(ThreadTeam, EveryMemberRunsEveryRoundOnItsOwnThread) {
  for (const int threads : {1, 2, 5}) {
    ThreadTeam team(threads, ThreadTeam::Together::kAlways);
    EXPECT_EQ(team.threads(), threads);
    std::vector<int> rounds(static_cast<std::size_t>(threads));
    std::vector<std::thread::id> ids(static_cast<std::size_t>(threads));
    for (int i = 0; i < 300; ++i) {
      team.run([&](int member) {
        ++rounds[static_cast<std::size_t>(member)];
        ids[static_cast<std::size_t>(member)] = std::this_thread::get_id();
      });
    }
    EXPECT_EQ(rounds, std::vector<int>(static_cast<std::size_t>(threads), 300));
    EXPECT_EQ(std::set(ids.begin(), ids.end()).size(), static_cast<std::size_t>(threads));
    EXPECT_EQ(ids[0], std::this_thread::get_id());
  }
}

// Whoever does a share: each is done once a round.
TEST(ThreadTeam, TheCallerDoesBothSharesWhereTheOtherIsWaitedForTooLong) {
  ThreadTeam team(2);
  std::vector<std::thread::id> ids(2);
  std::vector<int> rounds(2);
  const auto round = [&](int late_ms) {
    team.run([&](int member) {
      if (member == 1) std::this_thread::sleep_for(std::chrono::milliseconds(late_ms));
      ids[static_cast<std::size_t>(member)] = std::this_thread::get_id();
      ++rounds[static_cast<std::size_t>(member)];
    });
  };
  int together = 0;
  do {
    round(1);
    together += ids[0] != ids[1] ? 1 : 0;
  } while (ids[0] != ids[1] && together < 2 * TeamPace::kWindows * TeamPace::kWindowRounds);
  EXPECT_EQ(ids[0], ids[1]) << "after " << together << " rounds with a member that is 1 ms late";
  EXPECT_EQ(ids[0], std::this_thread::get_id());
  for (int i = 0; i < 100; ++i) round(0);
  EXPECT_EQ(rounds[0], rounds[1]);
}

TEST(ThreadTeam, WakesMembersThatFellAsleep) {
  ThreadTeam team(3);
  std::atomic<int> count{0};
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    team.run([&](int member) {
      if (member == 2) std::this_thread::sleep_for(std::chrono::milliseconds(5));  // the caller falls asleep, too
      ++count;
    });
  }
  EXPECT_EQ(count, 9);
}

}  // namespace
}  // namespace tandem::cpu
