// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/step_loop.h"

#include "slice/slice.h"

namespace tandem {

void run_steps(MeasuredSteps& measured, const StepLoop& loop) {
  cuda::StepClock clock;
  std::size_t told = 0;  // of the marks that have been passed
  const auto tell = [&](std::size_t mark) {
    loop.wait_for(clock, mark);
    while (told < mark) measured.add(clock.microseconds_before(++told));
  };
  // A step has a time where another one came before it.
  for (std::size_t step = 0; step == 0 || measured.wants_more_than(step - 1); ++step) {
    loop.launch(clock);
    if (step >= kStepsAhead) tell(step - kStepsAhead);
    loop.told();
  }
  tell(clock.marks() - 1);
}

}  // namespace tandem
