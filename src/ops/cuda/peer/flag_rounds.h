// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Flags that a thread of one GPU sends to a thread of another and gets back, with times (clock_offset.h).
#pragma once

#include <cstdint>

#include "ops/cuda/stream.h"

namespace tandem::cuda {

// Everything is in the memory of the GPU that plays, but the other's flag.
struct FlagPlayer {
  std::uint32_t* own;    // 0 in the beginning; the other raises it
  std::uint32_t* other;  // the other's own
  // Of who sends: [rounds][2] when it was sent, and was back; of who returns: [rounds] when it was seen. 0 where it did
  // not come to that within two seconds.
  std::uint64_t* times;
  std::uint32_t rounds;
};
void send_flags(const FlagPlayer& p, Stream stream);
void return_flags(const FlagPlayer& p, Stream stream);

}  // namespace tandem::cuda
