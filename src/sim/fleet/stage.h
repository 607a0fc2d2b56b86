// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Virtual time, what happens at which moment of it, and threads that take turns: one at a time runs, until it waits or
// ends. So code that blocks runs in a simulation as it is, and a run follows from its seed alone.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <semaphore>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace tandem {

class Stage;

// A process that can be held up as a whole, as by SIGSTOP: what is due for it waits.
class StageProcess {
 public:
  explicit StageProcess(Stage& stage) : stage_(stage) {}
  bool frozen() const { return state_->frozen; }
  void freeze() { state_->frozen = true; }
  void thaw();

 private:
  friend class Stage;
  struct State {
    bool frozen = false;
    std::vector<std::function<void()>> held;
  };
  Stage& stage_;
  const std::shared_ptr<State> state_ = std::make_shared<State>();  // what is due for it may outlive it
};

// A thread of a process. Its first turn is due at once.
class Actor {
 public:
  Actor(Stage& stage, StageProcess& process, std::function<void()> run);
  // Runs it to its end without moving time; it has been told to end.
  ~Actor();
  Actor(const Actor&) = delete;
  Actor& operator=(const Actor&) = delete;

  // On this thread: until woken, or for so long.
  void wait(Nanoseconds time);
  // Ends its wait, or its next one. Anybody whose turn it is.
  void wake();
  static Actor* current();  // null on the stage's own thread

 private:
  void take_turn();  // until it waits or ends; on the thread of whose turn it was

  Stage& stage_;
  StageProcess& process_;
  std::binary_semaphore go_{0}, done_{0};
  bool waiting_ = false, woken_ = false, ended_ = false;
  std::shared_ptr<std::uint64_t> waits_ = std::make_shared<std::uint64_t>(0);  // how often it waited; outlives it
  std::thread thread_;
};

class Stage {
 public:
  const VirtualClock& clock() const { return clock_; }
  Nanoseconds now() const { return clock_.now(); }
  // f runs when time has come, after what was due before; when the process is frozen, once it is not.
  void at(Nanoseconds time, std::function<void()> f, StageProcess* process = nullptr);
  // The next thing that is due, and time moves to it; false: nothing is.
  bool step();
  std::size_t due() const { return due_.size(); }

 private:
  struct Due {
    std::function<void()> run;
    std::shared_ptr<StageProcess::State> process;  // null: nobody's
  };
  VirtualClock clock_;
  std::uint64_t order_ = 0;
  std::map<std::pair<Nanoseconds, std::uint64_t>, Due> due_;
};

}  // namespace tandem
