// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/straggler_watch.h"

#include <algorithm>
#include <cmath>

#include "base/format.h"

namespace tandem {
namespace {

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

// Counts come from outside: no difference of them is out of range.
double passed(std::int64_t from, std::int64_t to) {
  return static_cast<double>(to) - static_cast<double>(from);
}

}  // namespace

StragglerWatch::StragglerWatch(std::int32_t attention, std::int32_t workers, double factor, Nanoseconds window)
    : attention_(static_cast<std::size_t>(attention)),
      factor_(factor),
      window_(window),
      seen_(static_cast<std::size_t>(workers)) {}

void StragglerWatch::begin(const std::vector<bool>& takes_part, Nanoseconds now) {
  for (std::size_t rank = 0; rank < seen_.size(); ++rank) {
    seen_[rank] = {};
    seen_[rank].takes_part = takes_part[rank];
  }
  begun_ = now;
  suspect_.reset();
  slow_.reset();
  windows_ = 0;
}

void StragglerWatch::take(std::int32_t rank, const Report& report) {
  Seen& seen = seen_[static_cast<std::size_t>(rank)];
  if (!seen.first) seen.first = report;
  seen.last = report;
}

bool StragglerWatch::look(Nanoseconds now) {
  if (factor_ <= 0 || now - begun_ < window_) return false;
  if (!has_steps() && now - begun_ < kLongestWindow * window_) return false;
  begun_ = now;
  measure();
  const std::optional<Straggler> found = judge();
  if (!found) remember();  // what was slow is no measure
  const bool again = found && suspect_ && found->rank == suspect_->rank;
  windows_ = again ? windows_ + 1 : found ? 1 : 0;
  suspect_ = found;
  slow_ = windows_ >= kWindows ? found : std::nullopt;
  return true;
}

const StragglerWatch::Step* StragglerWatch::Seen::usual() const {
  const auto found = best.find(step->size);
  return found == best.end() ? nullptr : &found->second;
}

// Enough, of all that make any.
bool StragglerWatch::has_steps() const {
  return std::ranges::none_of(seen_, [](const Seen& seen) {
    if (!seen.takes_part || !seen.last) return false;
    const double steps = passed(seen.first->steps, seen.last->steps);
    return steps > 0 && steps < kStepsMin;
  });
}

void StragglerWatch::measure() {
  for (Seen& seen : seen_) {
    seen.step.reset();
    if (!seen.takes_part || !seen.last) continue;
    const Report &from = *seen.first, &to = *seen.last;
    const double steps = passed(from.steps, to.steps), rows = std::max(1.0, passed(from.rows, to.rows));
    if (steps >= kStepsMin) {
      const double busy_ms = 1e-6 * passed(from.busy_ns, to.busy_ns);
      seen.step = Step{.busy_ms = busy_ms / steps,
                       .wait_ms = 1e-6 * passed(from.wait_ns, to.wait_ns) / steps,
                       .row_ms = busy_ms / rows,
                       .size = std::ilogb(std::max(1.0, rows / steps))};
    }
    seen.first = seen.last;
  }
}

std::optional<StragglerWatch::Step> StragglerWatch::usual_of(std::size_t rank) const {
  const bool attention = rank < attention_;
  const std::size_t begin = attention ? 0 : attention_, end = attention ? attention_ : seen_.size();
  std::vector<double> busy, row, wait;
  for (std::size_t other = begin; other < end; ++other) {
    if (other == rank || !seen_[other].step) continue;
    busy.push_back(seen_[other].step->busy_ms);
    row.push_back(seen_[other].step->row_ms);
    wait.push_back(seen_[other].step->wait_ms);
  }
  if (!busy.empty()) return Step{.busy_ms = median(busy), .wait_ms = median(wait), .row_ms = median(row)};
  if (attention || !seen_[rank].usual()) return std::nullopt;
  Step alone = *seen_[rank].usual();
  alone.wait_ms = seen_[rank].step->wait_ms;  // there is nothing to compare it with
  return alone;
}

std::optional<Straggler> StragglerWatch::judge() const {
  for (std::size_t rank = 0; rank < seen_.size(); ++rank) {
    if (!seen_[rank].step) continue;
    const Step& step = *seen_[rank].step;
    const std::optional<Step> usual = usual_of(rank);
    if (!usual || step.busy_ms < factor_ * usual->busy_ms || step.row_ms < factor_ * usual->row_ms) continue;
    if (step.wait_ms > usual->wait_ms || step.busy_ms - usual->busy_ms < kLeastMs) continue;
    return Straggler{static_cast<std::int32_t>(rank),
                     format("computes {:.2f} ms a step, {:.2f} ms is usual, and waits {:.2f} ms", step.busy_ms,
                            usual->busy_ms, step.wait_ms)};
  }
  return slow_links();
}

std::optional<Straggler> StragglerWatch::slow_links() const {
  double computes = 0, waits = 0, before = 0;
  for (std::size_t rank = attention_; rank < seen_.size(); ++rank)
    if (seen_[rank].step) computes = std::max(computes, seen_[rank].step->busy_ms);
  for (std::size_t rank = 0; rank < attention_; ++rank) {
    const Seen& seen = seen_[rank];
    if (!seen.step) continue;
    const Step* const usual = seen.usual();
    const double wait = seen.step->wait_ms;
    if (!usual || wait < factor_ * computes || wait < factor_ * usual->wait_ms) return std::nullopt;
    if (wait <= waits) continue;
    waits = wait;
    before = usual->wait_ms;
  }
  if (waits - before < kLeastMs) return std::nullopt;
  return Straggler{-1,
                   format("attention workers wait {:.2f} ms a step, {:.2f} ms before, and FFN workers compute {:.2f} "
                          "ms: the links, or a host that gives a worker no time",
                          waits, before, computes)};
}

void StragglerWatch::remember() {
  for (Seen& seen : seen_) {
    if (!seen.step) continue;
    Step& best = seen.best.try_emplace(seen.step->size, *seen.step).first->second;
    best.busy_ms = std::min(best.busy_ms, seen.step->busy_ms);
    best.wait_ms = std::min(best.wait_ms, seen.step->wait_ms);
    best.row_ms = std::min(best.row_ms, seen.step->row_ms);
  }
}

}  // namespace tandem
