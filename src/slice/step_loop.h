// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The steps of a run: launched one after the other, some of them ahead, each timed when it has ended.
#pragma once

#include <cstddef>
#include <functional>

#include "ops/cuda/peer/step_clock.h"
#include "slice/measured_steps.h"

namespace tandem {

struct StepLoop {
  std::function<void(cuda::StepClock&)> launch;                            // of a step, with one mark behind it
  std::function<void(const cuda::StepClock&, std::size_t mark)> wait_for;  // returns when it has been passed; may throw
  std::function<void()> told = [] {};                                      // behind each launch, measured is up to date
};

// Until measured wants no more and the last mark has been passed; other streams may still run. kStepsAhead (slice.h)
// are launched before one of them has ended. measured is told of each step in turn.
void run_steps(MeasuredSteps& measured, const StepLoop& loop);

}  // namespace tandem
