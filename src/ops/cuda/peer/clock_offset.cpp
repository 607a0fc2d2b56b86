// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What follows from rounds, on any machine; measured_clock_offset.cpp makes them.
#include "ops/cuda/peer/clock_offset.h"

#include <algorithm>

#include "base/check.h"

namespace tandem::cuda {

ClockOffset offset_of(const std::vector<FlagRound>& rounds) {
  TANDEM_CHECK(!rounds.empty(), "a clock offset of no rounds");
  const FlagRound& r = *std::ranges::min_element(rounds, {}, [](const FlagRound& x) { return x.back - x.sent; });
  const std::uint64_t middle = r.sent + (r.back - r.sent) / 2;
  return {.at = static_cast<std::int64_t>(middle),
          .offset_ns = static_cast<std::int64_t>(r.seen - middle),
          .error_ns = static_cast<std::int64_t>((r.back - r.sent + 1) / 2)};
}

std::int64_t to_first_clock(std::uint64_t of_second, const ClockOffset& before, const ClockOffset& after) {
  const auto time = static_cast<std::int64_t>(of_second);
  const double length = static_cast<double>(after.at - before.at);
  const double passed = static_cast<double>(time - before.offset_ns - before.at);
  const double share = length > 0 ? passed / length : 0;
  return time - before.offset_ns -
         static_cast<std::int64_t>(share * static_cast<double>(after.offset_ns - before.offset_ns));
}

}  // namespace tandem::cuda
