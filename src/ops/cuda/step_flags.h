// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// StepFlags of a stream (tensor/step_flags.h): words in the memory of the GPU that waits, which a kernel of one thread
// of the other side writes and a kernel of one thread here watches. Epochs and patience are what stream_flag.h, whose
// words the streams' front ends watch, does not have: a front end compares with a number that is fixed when a step is
// recorded. A thread that watches takes one warp of one multiprocessor.
#pragma once

#include <memory>

#include "base/clock.h"
#include "ops/cuda/stream.h"
#include "tensor/step_flags.h"

namespace tandem::cuda {

// Of a stream of the device, which has to live as long. count flags each way.
std::unique_ptr<StepFlags> make_step_flags(int device, Stream stream, std::int32_t count, Nanoseconds patience);

}  // namespace tandem::cuda
