// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A team of threads that run one task together and then wait for the next.
//
// The caller is member 0. Members spin for a few microseconds before they sleep, since a model's operators follow each
// other closely; with more members than cores they soon sleep and leave the core to others. What a share is, is decided
// by member number alone, so a result never depends on timing, nor on who does it: where two members lose more by
// waiting for each other than they gain (team_pace.h), the caller does both shares.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <thread>
#include <vector>

#include "ops/cpu/team_pace.h"

namespace tandem::cpu {

class ThreadTeam {
 public:
  // kAlways: no member's share is done by another, for measuring what all of them can do.
  enum class Together : std::uint8_t { kWhenFaster, kAlways };
  explicit ThreadTeam(int threads, Together together = Together::kWhenFaster);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int threads() const { return static_cast<int>(members_.size()) + 1; }

  // Calls task(member) for members 0 … threads-1, each on its own thread or one after the other, and returns when all
  // are done. The task must not throw, nor wait for another member. One caller at a time.
  template <class Task>
  void run(const Task& task) {
    run_entry([](const void* t, int member) { (*static_cast<const Task*>(t))(member); }, &task);
  }

 private:
  using Entry = void (*)(const void* task, int member);
  void run_entry(Entry entry, const void* task);
  void begin_round(Entry entry, const void* task);
  void wait_for_members();
  void serve(int member);

  // The task of the current round; written before round_ is raised.
  Entry entry_ = nullptr;  // null: go home
  const void* task_ = nullptr;
  alignas(64) std::atomic<int> round_{0};
  alignas(64) std::atomic<int> busy_{0};  // members that have not finished the round
  std::atomic<Nanoseconds> done_{0};      // when member 1 had, where the pace is asked for
  std::optional<TeamPace> pace_;          // of two
  std::vector<std::thread> members_;
};

}  // namespace tandem::cpu
