// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A word in device memory that one stream raises and another, of the same or of a peer GPU, waits for, without the CPU;
// both can be recorded into CUDA graphs. The streams' front ends do it, which takes nothing of a multiprocessor but
// sees a word up to eight microseconds late on an H200; or kernels of one thread (thread_flag.h), who see it at once.
//
// Who waits lowers the flag. So the same recorded step can be launched again, as long as nobody raises a flag twice
// before it was waited for: a hand-over is not made before the last one's return, which makes sure of it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/stream.h"

namespace tandem::cuda {

enum class FlagsBy : std::uint8_t { kThreads, kFrontEnds };

// The word lies in the memory of the GPU that waits. It is raised after everything before in the stream, visible to
// peers.
void raise_flag(std::uint32_t* flag, FlagsBy by, Stream stream);
void wait_and_lower_flag(std::uint32_t* flag, FlagsBy by, Stream stream);

// bytes from anywhere to anywhere, by a copy engine.
void copy_between_devices(void* to, const void* from, std::size_t bytes, Stream stream);

}  // namespace tandem::cuda
