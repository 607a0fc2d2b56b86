// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sim/fleet/stage.h"

#include "base/check.h"

namespace tandem {
namespace {

constexpr int kLastTurnsMax = 100'000;  // of a thread that has been told to end

thread_local Actor* current_actor = nullptr;

}  // namespace

void StageProcess::thaw() {
  state_->frozen = false;
  for (std::function<void()>& run : std::exchange(state_->held, {})) stage_.at(stage_.now(), std::move(run), this);
}

Actor::Actor(Stage& stage, StageProcess& process, std::function<void()> run) : stage_(stage), process_(process) {
  thread_ = std::thread([this, run = std::move(run)] {
    current_actor = this;
    go_.acquire();
    run();
    ended_ = true;
    done_.release();
  });
  // Its first turn is its own: who made it has more to do.
  waiting_ = true;
  wake();
}

Actor::~Actor() {
  for (int turns = 0; !ended_; ++turns) {
    TANDEM_CHECK(turns < kLastTurnsMax, "a simulated thread does not end");
    take_turn();
  }
  ++*waits_;  // what is due for it is due no more
  thread_.join();
}

Actor* Actor::current() {
  return current_actor;
}

void Actor::take_turn() {
  waiting_ = false;
  woken_ = false;
  ++*waits_;
  go_.release();
  done_.acquire();
}

void Actor::wait(Nanoseconds time) {
  if (woken_) {
    woken_ = false;
    return;
  }
  waiting_ = true;
  stage_.at(
      stage_.now() + time,
      [this, waits = waits_, mine = *waits_] {
        if (*waits == mine) take_turn();
      },
      &process_);
  done_.release();
  go_.acquire();
}

void Actor::wake() {
  if (!waiting_) {
    woken_ = true;
    return;
  }
  stage_.at(
      stage_.now(),
      [this, waits = waits_, mine = *waits_] {
        if (*waits == mine) take_turn();
      },
      &process_);
}

void Stage::at(Nanoseconds time, std::function<void()> f, StageProcess* process) {
  due_.emplace(std::pair(time < now() ? now() : time, order_++),
               Due{std::move(f), process ? process->state_ : nullptr});
}

bool Stage::step() {
  if (due_.empty()) return false;
  auto first = due_.extract(due_.begin());
  clock_.advance_to(first.key().first);
  Due& due = first.mapped();
  if (due.process && due.process->frozen)
    due.process->held.push_back(std::move(due.run));
  else
    due.run();
  return true;
}

}  // namespace tandem
