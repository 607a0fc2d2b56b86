// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What an FFN worker computes: its share of the experts and of what every token uses, on one hand-over, or on several
// put side by side so that weights are read once for all of them. The bits are the same either way. It keeps nothing
// between calls. One thread.
//
// Hand-overs and returns are in host memory, and then a call ends when its return is there; or they are in the memory
// of the backend's device, and then the return is there in the order of the device's work.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "engine/worker/worker_config.h"
#include "model/model.h"
#include "ops/backend.h"

namespace tandem {

class ExpertShare {
 public:
  struct Place {
    FfnShare share;
    bool device_rows = false;   // hand-overs and returns are on the backend's device
    bool await_device = false;  // a call ends when its return is there even so, for who looks at the time it takes
  };
  ExpertShare(std::shared_ptr<const Model> model, Backend& backend, const WorkerConfig& config, const Place& place);

  // output: a row for each slot whose expert is of this share, and partials as partial_rows() says. The hand-over's
  // weights may be overwritten where they are in host memory.
  struct Part {
    const HandOver* hand_over = nullptr;
    FfnOutput output;
  };
  void run(std::int32_t layer, const Part& part);
  // Of one layer, from several attention workers.
  void run_together(std::int32_t layer, std::span<const Part> parts);

 private:
  void allocate_ones(std::int64_t slots);
  HandOver weighed(HandOver hand_over) const;
  void run_on_host_frames(std::int32_t layer, const HandOver& hand_over, const FfnOutput& output);
  void move(Tensor to, const Tensor& from);
  Workspace workspace() { return {backend_, arena_, nullptr, nullptr, activations_}; }

  std::shared_ptr<const Model> model_;
  Backend& backend_;
  const FfnShare share_;
  const Activations activations_;
  const bool device_rows_, await_device_;
  Arena arena_;
  Buffer together_memory_;  // what is put side by side, and its results; where rows are on a device, in far_memory_
  Buffer far_memory_;       // where operators have their own: the arrays of frames, or what is put side by side
  Buffer ones_;             // where rows are on a device and experts are cut by width: the weights of all slots
  Buffer widened_;          // where activations cross in FP8, rows as experts take them
};

}  // namespace tandem
