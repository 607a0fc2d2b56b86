// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/flag_waiters.h"

#include <thread>

#include "ops/cuda/device_memory.h"
#include "ops/cuda/peer/devices.h"
#include "ops/cuda/split/decode_step.h"

namespace tandem {

bool wait_until(const std::function<bool()>& ended) {
  const auto until = std::chrono::steady_clock::now() + kFlagPatience;
  while (!ended()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return true;
}

bool free_waiters(std::span<const GpuFlags> gpus, const std::function<bool()>& ended) {
  const auto until = std::chrono::steady_clock::now() + kFlagPatience;
  while (!ended()) {
    if (std::chrono::steady_clock::now() > until) return false;
    for (const GpuFlags& gpu : gpus) {
      const cuda::OnDevice on(gpu.gpu);
      for (std::uint32_t* const flag : gpu.flags) cuda::set_word(flag, 1, nullptr);
      cuda::synchronise();
    }
  }
  return true;
}

}  // namespace tandem
