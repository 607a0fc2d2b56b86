// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/team_pace.h"

#include <algorithm>

namespace tandem::cpu {

void TeamPace::together(Nanoseconds round, Nanoseconds waited) {
  time_ += round;
  waited_ += waited;
  if (++rounds_ < kWindowRounds || time_ < kWindow) return;
  const bool too_much = static_cast<double>(waited_) > kTooMuch * static_cast<double>(time_);
  time_ = waited_ = rounds_ = 0;
  if (!too_much) {
    windows_ = 0;
    alone_next_ = kAlone;
  } else if (++windows_ == kWindows) {
    windows_ = 0;
    alone_left_ = alone_next_;
    alone_next_ = std::min(2 * alone_next_, kAloneMost);
  }
}

}  // namespace tandem::cpu
