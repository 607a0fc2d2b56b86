// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Flags by which the work of two devices, or of two streams of one, keeps its order without a host: one side raises a
// flag, the other's work waits for it. Both are given like any other work, so they can be recorded and run again.
//
// A run of the recorded work is an epoch, which is told apart by its number alone: a flag is up when it was raised in
// this epoch or a later one, so nobody lowers flags, and what a run that was given up still raises is too old for the
// next. Who has waited for longer than its patience poisons the epoch for both sides: all their waits in it end, and
// nothing is raised in it any more. What is computed behind a poisoned wait is worth nothing; it goes on with whatever
// its memory holds, and ends.
#pragma once

#include <cstdint>

namespace tandem {

// One side's. The thread that gives its device work, but for poisoned().
class StepFlags {
 public:
  virtual ~StepFlags() = default;

  // Once, before anything else: each of the two is told of the other. False where one cannot reach the other's memory.
  virtual bool connect(StepFlags& other) = 0;
  // Whether both work in one memory, so that nothing need be brought over.
  virtual bool same_memory(const StepFlags& other) const = 0;
  // Work given from now on is of this epoch. They ascend, from 1. Not recorded.
  virtual void begin(std::uint64_t epoch) = 0;
  // Behind the work given so far, all of which the other side then sees.
  virtual void raise(std::int32_t flag) = 0;
  // Work given from now on comes after the other side has raised its flag, or the epoch is poisoned.
  virtual void wait(std::int32_t flag) = 0;
  // Whether a wait of this side found the epoch poisoned, or a later one. Known when the work given in it is done. Any
  // thread.
  virtual bool poisoned(std::uint64_t epoch) const = 0;
};

}  // namespace tandem
