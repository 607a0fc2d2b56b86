// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/row_search.h"

#include <algorithm>

namespace tandem {

std::int32_t most_rows(const RowGrid& grid, double step_us_max,
                       const std::function<std::optional<double>(std::int32_t)>& step_us_of) {
  constexpr std::int32_t kNoLimit = 1 << 20;
  const std::int32_t step = grid.step;
  std::int32_t fits = 0, too_many = kNoLimit;
  std::int32_t rows = std::max(grid.first / step * step, step);
  for (int tries = 1; tries <= kRowTriesMax; ++tries) {
    const std::optional<double> us = step_us_of(rows);
    const bool keeps = us && *us <= step_us_max;
    double wanted = us ? rows * step_us_max / *us : (fits + rows) / 2.;
    if (keeps && fits > 0 && too_many == kNoLimit) wanted = std::max(wanted, rows + 2. * (rows - fits));
    if (!keeps && fits == 0) {
      if (too_many != kNoLimit) wanted = std::min(wanted, rows / 2.);
      if (tries == kRowTriesMax - 1) wanted = step;
    }
    (keeps ? fits : too_many) = rows;
    if (fits + step > too_many - step) break;
    rows = std::clamp(static_cast<std::int32_t>(std::min(wanted, double{kNoLimit})) / step * step, fits + step,
                      too_many - step);
  }
  return fits;
}

}  // namespace tandem
