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
  std::size_t marks() const { return events_.size(); }
  void wait_for(std::size_t mark) const;  // until it has been passed
  bool has_passed(std::size_t mark) const;

 private:
  std::vector<CUevent_st*> events_;
};

// *place = the GPU's clock in nanoseconds. A kernel of one thread, which can be recorded; clocks of two GPUs are not
// the same.
void write_time(std::uint64_t* place, Stream stream);

}  // namespace tandem::cuda
