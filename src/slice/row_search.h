// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Looks for the largest micro-batch that keeps a time, by as few measurements as it can: each costs seconds.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

namespace tandem {

inline constexpr std::int32_t kRowTriesMax = 6;

struct RowGrid {
  std::int32_t first = 0, step = 8;
};

// The most rows, a multiple of the step, that were measured to take at most step_us_max; 0: none was, down to one step.
// Begins at first. Goes where the last time points if it grew with the rows (it grows by less); twice as far as last
// time while all of them fit (it grows in steps); from the second on that does not fit, while none does, at least to
// the half, and to one step with the last try. Ends when there is nothing left between what fits and what does not, or
// after kRowTriesMax. step_us_of: microseconds of a step; none: it has no room.
std::int32_t most_rows(const RowGrid& grid, double step_us_max,
                       const std::function<std::optional<double>(std::int32_t)>& step_us_of);

}  // namespace tandem
