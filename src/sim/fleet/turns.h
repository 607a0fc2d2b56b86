// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The control loop of a simulated process: it takes a turn when woken, and after a while anyhow.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "sim/fleet/stage.h"

namespace tandem {

class Turns {
 public:
  // turn: returns after how long the next one is due.
  Turns(Stage& stage, StageProcess& process, std::function<Nanoseconds()> turn)
      : stage_(stage), process_(process), turn_(std::move(turn)) {}
  ~Turns() { ++*turns_; }
  void wake() { due(stage_.now()); }

 private:
  void due(Nanoseconds time) {
    if (time >= next_) return;
    next_ = time;
    stage_.at(
        time,
        [this, turns = turns_, mine = *turns_] {
          if (*turns != mine) return;
          ++*turns_;  // others that are due are due no more
          next_ = kNever;
          const Nanoseconds pause = turn_();
          due(stage_.now() + pause);
        },
        &process_);
  }

  static constexpr Nanoseconds kNever = INT64_MAX;
  Stage& stage_;
  StageProcess& process_;
  const std::function<Nanoseconds()> turn_;
  std::shared_ptr<std::uint64_t> turns_ = std::make_shared<std::uint64_t>(0);
  Nanoseconds next_ = kNever;
};

}  // namespace tandem
