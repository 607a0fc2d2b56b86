// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/row_search.h"

#include <algorithm>

namespace tandem {

std::int32_t most_rows(std::int32_t first, double step_us_max,
                       const std::function<std::optional<double>(std::int32_t)>& step_us_of) {
  constexpr std::int32_t kNoLimit = 1 << 20;
  std::int32_t fits = 0, too_many = kNoLimit;
  std::int32_t rows = std::max(first / kRowStep * kRowStep, kRowStep);
  for (int tries = 0; tries < kRowTriesMax; ++tries) {
    const std::optional<double> us = step_us_of(rows);
    const bool keeps = us && *us <= step_us_max;
    (keeps ? fits : too_many) = rows;
    const double wanted = us ? rows * step_us_max / *us : (fits + too_many) / 2.;
    if (fits + kRowStep > too_many - kRowStep) break;
    rows = std::clamp(static_cast<std::int32_t>(std::min(wanted, double{kNoLimit})) / kRowStep * kRowStep,
                      fits + kRowStep, too_many - kRowStep);
  }
  return fits;
}

}  // namespace tandem
