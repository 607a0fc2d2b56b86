// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// When a stream passed certain places, told afterwards: of every step of a long run, and of stages inside a recorded
// step.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/cuda/stream.h"

struct CUevent_st;

namespace tandem::cuda {

// Marks in a stream, outside of graphs.
class StepClock {
 public:
  StepClock() = default;
  StepClock(const StepClock&) = delete;
  StepClock& operator=(const StepClock&) = delete;
  ~StepClock();

  void mark(Stream stream);
  // Between each mark and the next. All must have been passed.
  std::vector<double> microseconds() const;
  // From the mark before to this one, which has been passed; not of the first.
  double microseconds_before(std::size_t mark) const;
  std::size_t marks() const { return events_.size(); }
  void wait_for(std::size_t mark) const;  // until it has been passed
  bool has_passed(std::size_t mark) const;

 private:
  std::vector<CUevent_st*> events_;
};

// A place in a recorded step that is passed once a step: when, by the GPU's clock in nanoseconds, for as many of the
// last steps as there are words. A kernel of one thread that waits for nobody but the one before it; the clocks of two
// GPUs are not the same (clock_offset.h). Everything points to device memory.
struct StampTime {
  std::uint64_t* stamps;      // of step s in word s % steps_kept · stride
  const std::uint32_t* step;  // steps that have ended
  std::uint32_t ahead;        // 1 where the step is counted only after this place
  std::uint32_t steps_kept, stride;
};
void run(const StampTime& op, Stream stream);

}  // namespace tandem::cuda
