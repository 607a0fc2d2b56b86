// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A stream that is held up for a time: what a network that is not there, or a worker that stalls, would cost. The timer
// is a kernel of one thread, so a warp of one multiprocessor is taken while it runs.
#pragma once

#include <cstdint>

#include "ops/cuda/stream.h"

namespace tandem::cuda {

// Ends occupied_ns + latency_ns after it began, later where others with the same link are before it: their
// occupied_ns come one after the other, as messages do on a wire.
struct HoldStream {
  std::uint64_t* free_at;  // on the device, 0 in the beginning: when the link has sent what it was given; null: no link
  std::uint32_t occupied_ns, latency_ns;
};
void run(const HoldStream& op, Stream stream);

}  // namespace tandem::cuda
