// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/measured_steps.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "slice/slice_trace.h"

namespace tandem {

namespace {

double median_of(std::vector<double> times) {
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

bool are_close(double a, double b) {
  return std::abs(a - b) <= MeasuredSteps::kSettled * b;
}

}  // namespace

StepTimes step_times(std::vector<double> all) {
  const Quantiles q = quantiles_of(all);
  return {.median = q.p50, .p99 = q.p99, .all = std::move(all), .warm_up = {}};
}

double StepTimes::drift() const {
  if (all.size() < 100) return 1;
  const auto tenth = static_cast<std::ptrdiff_t>(all.size() / 10);
  return median_of({all.end() - tenth, all.end()}) / median_of({all.begin(), all.begin() + tenth});
}

MeasuredSteps::MeasuredSteps(int steps, double warm_up_seconds_max)
    : steps_(static_cast<std::size_t>(steps)),
      warm_up_us_max_(1e6 * warm_up_seconds_max),
      warm_(warm_up_us_max_ <= 0) {}

void MeasuredSteps::add(double step_us) {
  all_.push_back(step_us);
  if (warm_) return;
  ++warm_up_.steps;
  warm_up_.seconds += 1e-6 * step_us;
  second_.push_back(step_us);
  second_us_ += step_us;
  if (second_us_ >= std::min(1e6, warm_up_us_max_ / 3)) end_second();
}

void MeasuredSteps::end_second() {
  medians_.push_back(median_of(std::move(second_)));
  second_.clear();
  second_us_ = 0;
  const std::size_t n = medians_.size();
  warm_up_.settled =
      n >= 3 && are_close(medians_[n - 1], medians_[n - 2]) && are_close(medians_[n - 2], medians_[n - 3]);
  warm_ = warm_up_.settled || 1e6 * warm_up_.seconds >= warm_up_us_max_;
}

bool MeasuredSteps::wants_more_than(std::size_t steps) const {
  return !warm_ || steps <= static_cast<std::size_t>(warm_up_.steps) + steps_;
}

StepTimes MeasuredSteps::times() const {
  const auto first = static_cast<std::size_t>(warm_up_.steps);
  TANDEM_CHECK(warm_ && all_.size() >= first + steps_, "steps that are not measured yet");
  const auto begin = all_.begin() + static_cast<std::ptrdiff_t>(first);
  StepTimes times = step_times({begin, begin + static_cast<std::ptrdiff_t>(steps_)});
  times.warm_up = warm_up_;
  return times;
}

}  // namespace tandem
