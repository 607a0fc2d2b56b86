// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A word in device memory that one stream raises and another, of the same or of a peer GPU, waits for. The streams'
// front ends do both, so that no multiprocessor spins and no CPU is asked; both can be recorded into CUDA graphs.
//
// Who waits lowers the flag. So the same recorded step can be launched again, as long as nobody raises a flag twice
// before it was waited for: a hand-over is not made before the last one's return, which makes sure of it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/stream.h"

namespace tandem::cuda {

// The word lies in the memory of the GPU that waits.
void raise_flag(std::uint32_t* flag, Stream stream);  // after everything before it in the stream, visible to peers
void wait_and_lower_flag(std::uint32_t* flag, Stream stream);

// bytes from anywhere to anywhere, by a copy engine.
void copy_between_devices(void* to, const void* from, std::size_t bytes, Stream stream);

}  // namespace tandem::cuda
