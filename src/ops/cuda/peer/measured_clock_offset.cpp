// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/device_memory.h"
#include "ops/cuda/peer/clock_offset.h"
#include "ops/cuda/peer/devices.h"
#include "ops/cuda/peer/flag_rounds.h"

namespace tandem::cuda {

namespace {

constexpr std::uint32_t kRounds = 64;

struct PlayerMemory {
  explicit PlayerMemory(std::size_t words) : flag(sizeof(std::uint32_t)), times(words * sizeof(std::uint64_t)) {
    flag.fill(0);
    times.fill(0);
    synchronise_device();
  }
  FlagPlayer player(const PlayerMemory& other) const {
    return {flag.as<std::uint32_t>(), other.flag.as<std::uint32_t>(), times.as<std::uint64_t>(), kRounds};
  }

  DeviceMemory flag, times;
  WorkStream stream;
};

}  // namespace

ClockOffset measure_clock_offset(int first_gpu, int second_gpu) {
  const OnDevice on(first_gpu);
  const PlayerMemory first(2 * kRounds);
  std::vector<std::uint64_t> seen;
  {
    const OnDevice there(second_gpu);
    const PlayerMemory second(kRounds);
    return_flags(second.player(first), second.stream.get());
    {
      const OnDevice here(first_gpu);
      send_flags(first.player(second), first.stream.get());
      synchronise_device();
    }
    synchronise_device();
    seen = second.times.download<std::uint64_t>();
  }
  const auto sent_and_back = first.times.download<std::uint64_t>();
  std::vector<FlagRound> rounds;
  for (std::size_t i = 1; i < kRounds; ++i)  // not the first, in which one of them has not begun
    if (sent_and_back[2 * i + 1] != 0) rounds.push_back({sent_and_back[2 * i], seen[i], sent_and_back[2 * i + 1]});
  if (rounds.empty())
    throw Error(ErrorCode::kUnavailable,
                format("GPU {} and GPU {} do not see each other's flags: no clock offset", first_gpu, second_gpu));
  return offset_of(rounds);
}

}  // namespace tandem::cuda
