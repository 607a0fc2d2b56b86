// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// An attention worker's decoding steps that come again: each kind is recorded once and then given to the backend as a
// whole. In the local layout the backend replays it. Where the only FFN worker is behind a device seam
// (engine/hand_over/device_seam.h), both sides launch what they recorded, under the number of an epoch; the first step
// of each kind goes in frames there, so that both sides have run every operator of it, with all memory that they need.
// One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <vector>

#include "engine/hand_over/device_seam.h"
#include "engine/worker/worker_config.h"
#include "ops/backend.h"

namespace tandem {

class RecordedSteps {
 public:
  struct Kind {
    std::vector<std::int64_t> key;   // what decides which operators run and how they are best launched
    std::vector<std::int64_t> rows;  // by micro-batch, also of those that have none
  };
  using Record = std::function<void()>;  // gives the backend all work of a step

  // seam: null where there is none.
  RecordedSteps(Backend& backend, DeviceSeam* seam, const WorkerConfig& config);

  // Whether steps can be given at all.
  bool possible() const { return local_ || (seam_ && !left_); }
  // A whole step of this kind went in frames.
  void note(const Kind& kind);
  bool noted(const Kind& kind) const { return seen_.contains(kind.key); }
  // Of a kind that was noted, before give(): both sides record. False where the FFN worker does not, and then nothing
  // goes by flags any more.
  bool prepare(const Kind& kind, const Record& record);

  // Returns the epoch; 0 in the local layout, where nothing has to be prepared.
  std::uint64_t give(const Kind& kind, const Record& record);
  // Before memory is taken (DeviceSeam::await_launch).
  void await_launch();
  // Whether a side's wait ran out of patience: what was computed in the epoch is worth nothing.
  bool stalled(std::uint64_t epoch) const;
  // From now on everything goes in frames, which need less of both sides. Flags of steps under way are still asked
  // about.
  void leave_seam() { left_ = true; }

 private:
  Backend& backend_;
  DeviceSeam* seam_;
  bool local_;
  Nanoseconds patience_;
  bool left_ = false;
  std::set<std::vector<std::int64_t>> seen_;
};

}  // namespace tandem
