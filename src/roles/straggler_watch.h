// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Who holds the others up, found from what workers report of their steps. In a step everybody waits for everybody, so
// all of them get slow together; what tells them apart is how long each computes and how long it waits (rules after
// StepMesh's: only differences of times of one host are used, and a short wait marks the slow one).
//
//   computes long     an attention or FFN worker whose time of computing, for a step and for a row, is `factor` times
//                     that of its kind (the median of the others), and which waits no longer than those. Where an FFN
//                     worker is alone, its own best window with about as many rows a step stands for the others: what a
//                     row costs it does not depend on contexts. What it costs an attention worker does: there this may
//                     also say that it has the long ones.
//   links             attention workers wait `factor` times as long as any FFN worker computes, and `factor` times as
//                     long as in their own best window of as many rows: neither side computes, so it is the way
//                     between, or a host that gives a process no time
//
// Both have to hold in two windows one after the other, and by a millisecond at least. Of a worker that makes no
// steps nothing is said. One thread; no clock of its own.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "roles/control_message.h"

namespace tandem {

struct Straggler {
  std::int32_t rank = -1;  // -1: the links
  std::string why;         // "computes 52.10 ms a step, 4.90 ms is usual, and waits 0.30 ms"
  bool operator==(const Straggler&) const = default;
};

class StragglerWatch {
 public:
  static constexpr std::int64_t kStepsMin = 10;  // of a worker in a window, which lasts longer where steps do
  static constexpr int kLongestWindow = 10;      // times as long as it is meant to be
  static constexpr int kWindows = 2;             // one after the other
  static constexpr double kLeastMs = 1;

  // Ranks: attention workers first. factor: 0 finds nobody.
  StragglerWatch(std::int32_t attention, std::int32_t workers, double factor, Nanoseconds window);

  // Those take part, from now on: nothing of before counts.
  void begin(const std::vector<bool>& takes_part, Nanoseconds now);
  void take(std::int32_t rank, const Report& report);
  // Often. True: a window has ended, and slow() may be another.
  bool look(Nanoseconds now);
  // Whoever has been slow for so long; none: nobody.
  const std::optional<Straggler>& slow() const { return slow_; }

 private:
  struct Step {  // averages of a window
    double busy_ms = 0, wait_ms = 0, row_ms = 0;
    int size = 0;  // of rows a step: their logarithm
  };
  struct Seen {
    bool takes_part = false;
    std::optional<Report> first, last;  // of the window
    std::optional<Step> step;           // of the window that ended
    std::map<int, Step> best;           // by size: least times of all windows
    const Step* usual() const;          // best of those like step's; null: there was none
  };

  bool has_steps() const;
  void measure();
  std::optional<Straggler> judge() const;
  std::optional<Step> usual_of(std::size_t rank) const;
  std::optional<Straggler> slow_links() const;
  void remember();

  const std::size_t attention_;
  const double factor_;
  const Nanoseconds window_;
  std::vector<Seen> seen_;  // by rank
  Nanoseconds begun_ = 0;
  std::optional<Straggler> suspect_, slow_;
  int windows_ = 0;  // that it has been suspected
};

}  // namespace tandem
