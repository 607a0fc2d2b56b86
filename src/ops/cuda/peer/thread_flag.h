// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The word of stream_flag.h, raised and waited for by kernels of one thread each, which has a warp's place on one
// multiprocessor as long as it waits. What was written before the flag was raised is seen by the kernels after who
// waited for it.
#pragma once

#include <cstdint>

#include "ops/cuda/stream.h"

namespace tandem::cuda {

struct RaiseFlag {
  std::uint32_t* flag;  // in the memory of the GPU that waits
};
void run(const RaiseFlag& op, Stream stream);  // after everything before it in the stream, visible to peers

struct AwaitFlag {
  std::uint32_t* flag;
};
void run(const AwaitFlag& op, Stream stream);

}  // namespace tandem::cuda
