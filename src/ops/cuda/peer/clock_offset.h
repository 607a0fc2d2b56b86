// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// By how much the clocks of two GPUs differ: told by flags that they send each other, there and back, as NTP does.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem::cuda {

// Of one flag: sent and back by the first GPU's clock, seen in between by the second's. Nanoseconds.
struct FlagRound {
  std::uint64_t sent = 0, seen = 0, back = 0;
};

struct ClockOffset {
  std::int64_t at = 0;         // when, by the first GPU's clock
  std::int64_t offset_ns = 0;  // the second's clock less the first's
  std::int64_t error_ns = 0;   // it is off by this at most: half of the shortest round
};
// Of the shortest round, which somebody else's traffic has held up least. At least one round.
ClockOffset offset_of(const std::vector<FlagRound>& rounds);

// Both GPUs, which reach each other's memory (devices.h) and have nothing else to do, for some hundred microseconds. A
// thread of each waits for the other. Throws Error{kUnavailable} where no flag arrives.
ClockOffset measure_clock_offset(int first_gpu, int second_gpu);

// A time of the second GPU by the first's clock, from what was measured before and after it.
std::int64_t to_first_clock(std::uint64_t of_second, const ClockOffset& before, const ClockOffset& after);

}  // namespace tandem::cuda
