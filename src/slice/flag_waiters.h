// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A host that waits for GPUs which wait for each other's flags. It does not wait for ever: a side that does is a bug or
// a lost GPU, and is told, not endured.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace tandem {

inline constexpr std::chrono::seconds kFlagPatience{20};

// Until ended() says so. False when that takes longer than kFlagPatience.
bool wait_until(const std::function<bool()>& ended);

struct GpuFlags {
  int gpu = 0;
  std::vector<std::uint32_t*> flags;  // in its memory; what it waits for
};
// Raises every flag until ended() says that what was launched has run to its end, on whatever is in memory: its numbers
// are lost, the GPUs are not. False when that takes longer than kFlagPatience.
bool free_waiters(std::span<const GpuFlags> gpus, const std::function<bool()>& ended);

}  // namespace tandem
