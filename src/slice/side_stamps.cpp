// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/side_stamps.h"

#include "ops/cuda/peer/step_clock.h"
#include "slice/side_memory.h"

namespace tandem {

SideStamps::SideStamps(const StampShape& shape)
    : shape_(shape), stamps_(zeros(shape.place(shape.steps, 0, 0, 0) * sizeof(std::uint64_t))) {}

void SideStamps::stamp(const Place& at, cuda::Stream stream) const {
  if (!kept()) return;
  cuda::run(cuda::StampTime{.stamps = stamps_.as<std::uint64_t>() + shape_.place(0, at.layer, at.micro_batch, at.point),
                            .step = at.step,
                            .ahead = at.ahead,
                            .steps_kept = static_cast<std::uint32_t>(shape_.steps),
                            .stride = static_cast<std::uint32_t>(shape_.place(1, 0, 0, 0))},
            stream);
}

}  // namespace tandem
