// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Which steps of a run are measured, decided while it runs: those that come when steps take as long as the ones before
// them. Until then the GPUs' clocks come down to what the power limit allows.
#pragma once

#include <cstddef>
#include <vector>

namespace tandem {

struct WarmUp {
  int steps = 0;
  double seconds = 0;
  bool settled = false;  // else it ended for its time
};

// Time from one step to the next, of a micro-batch, over all of them.
struct StepTimes {
  double median = 0, p99 = 0;  // microseconds
  std::vector<double> all;
  WarmUp warm_up;  // before them

  // Median of the last tenth over that of the first, where there are 100 steps and more; else 1.
  double drift() const;
};

StepTimes step_times(std::vector<double> all);

class MeasuredSteps {
 public:
  // The warm-up is cut into seconds, or into thirds of its time where that is less. It is over when the median step of
  // each of the last two was within kSettled of the one before, or the time is; with no time the first steps are
  // measured. A GPU at its power limit swings by some per cent around its clock about once a second.
  MeasuredSteps(int steps, double warm_up_seconds_max);

  static constexpr double kSettled = 0.01;

  // Of the steps in turn; the warm-up may end with this one.
  void add(double step_us);
  bool warm() const { return warm_; }
  // Whether one more has to be run than are on their way or done. The last one is not measured: it ends in less
  // company.
  bool wants_more_than(std::size_t steps) const;
  // After the last one.
  StepTimes times() const;

 private:
  void end_second();

  std::size_t steps_;
  double warm_up_us_max_;
  WarmUp warm_up_;
  bool warm_ = false;
  std::vector<double> all_, second_, medians_;
  double second_us_ = 0;
};

}  // namespace tandem
