// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What stands behind a hand-over in stream mode, where identity is fixed when a step is recorded: its step, layer,
// micro-batch and rows. The first kernel that reads a hand-over compares; what does not fit is counted on the device
// and looked at when steps have ended.
#pragma once

#include <cstdint>

namespace tandem::cuda {

struct Seal {
  std::uint32_t step = 0;
  std::int32_t layer = 0, micro_batch = 0, rows = 0;
};

// Everything points to device memory. step counts the steps that this side has ended.
struct SealWrite {
  Seal* seal = nullptr;  // null: nothing to seal
  Seal value{};          // without step
  const std::uint32_t* step = nullptr;
};

struct SealCheck {
  const Seal* seal = nullptr;  // null: nothing to check
  Seal expected{};             // without step
  const std::uint32_t* step = nullptr;
  std::uint32_t steps_ago = 0;
  std::uint32_t* mismatches = nullptr;
};

}  // namespace tandem::cuda
