// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Whether two threads that wait for each other at the end of every round are faster than one of them by itself.
//
// Where something else wants one of their cores, a scheduler lets each run for some milliseconds in turn, a hundred
// rounds long, and the thread on the free core waits. So how long one waited for the other is added up over windows of
// rounds; after several in a row with too much of it one thread does both shares for a while, then both are tried
// again. Shares stay what they were, so results do not depend on it. More than two threads stay together: one that did
// two shares would slow down all others as much as the neighbour did.
//
// One thread at a time.
#pragma once

#include "base/clock.h"

namespace tandem::cpu {

class TeamPace {
 public:
  // A window has both: a single long round, as when a model is loaded, says nothing.
  static constexpr Nanoseconds kWindow = 20 * kMillisecond;
  static constexpr int kWindowRounds = 100;
  // Of a window. Who waited did a share in the rest of it, and would have done both in twice the rest. Shares are taken
  // to be about equal, and the caller, who is not pinned, to get the core that the other leaves.
  static constexpr double kTooMuch = 0.5;
  static constexpr int kWindows = 3;
  // After that; twice as long each time that nothing has changed, up to the most.
  static constexpr Nanoseconds kAlone = 200 * kMillisecond, kAloneMost = 1600 * kMillisecond;

  bool alone() const { return alone_left_ > 0; }

  // A round of both took so long, of which one waited for the other.
  void together(Nanoseconds round, Nanoseconds waited);
  // One did a round of both shares.
  void by_one(Nanoseconds round) { alone_left_ -= round; }

 private:
  Nanoseconds time_ = 0, waited_ = 0;  // of the window
  int rounds_ = 0, windows_ = 0;       // of the window; in a row
  Nanoseconds alone_left_ = 0, alone_next_ = kAlone;
};

}  // namespace tandem::cpu
