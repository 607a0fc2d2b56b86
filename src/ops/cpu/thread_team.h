// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A team of threads that run one task together and then wait for the next.
//
// The caller is member 0. Members spin for a few microseconds before they sleep, since a model's operators follow each
// other closely; with more members than cores they soon sleep and leave the core to others. Who does what is decided by
// member number alone, so a result never depends on timing.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

namespace tandem::cpu {

class ThreadTeam {
 public:
  explicit ThreadTeam(int threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int threads() const { return static_cast<int>(members_.size()) + 1; }

  // Calls task(member) for members 0 … threads-1, each on its own thread, and returns when all are done. The task must
  // not throw. One caller at a time.
  template <class Task>
  void run(const Task& task) {
    run_entry([](const void* t, int member) { (*static_cast<const Task*>(t))(member); }, &task);
  }

 private:
  using Entry = void (*)(const void* task, int member);
  void run_entry(Entry entry, const void* task);
  void serve(int member);

  // The task of the current round; written before round_ is raised.
  Entry entry_ = nullptr;  // null: go home
  const void* task_ = nullptr;
  alignas(64) std::atomic<int> round_{0};
  alignas(64) std::atomic<int> busy_{0};  // members that have not finished the round
  std::vector<std::thread> members_;
};

}  // namespace tandem::cpu
