// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Where an attention worker and its only FFN worker, threads of one process, hand over without their hosts.
//
// A decoding step that comes again is recorded by each side from its own walk of the command graph: the attention
// worker its commands, in which a hand-over raises a flag and what comes after a return waits for one; the FFN worker
// its experts, each behind a wait and before a flag. Both work on hand-overs where the attention worker computes them
// and on returns where the FFN worker does; with a GPU each, the FFN worker brings hand-overs over first. Then a step
// is one order from thread to thread and one launch on each side, and nothing of it is on a CPU until tokens are drawn.
// Micro-batches have flags of their own, so while one is with the experts the attention of the next is computed.
//
// A step has a number, its epoch (tensor/step_flags.h). When a side stalls, the other's wait runs out of patience and
// poisons the epoch; both sides' work then ends, on whatever numbers memory holds. What names experts among them the
// FFN worker first copies to where nobody else writes, within bounds (ClampIds). The attention worker sees it before it
// commits anything, gives the step again under a new epoch (a step can be run again until it is committed). After so
// many times it lets its requests fail, and hands over in frames from then on.
//
// What is not such a step goes in frames (engine/attention/hand_over_link.h): prompts, steps that somebody looks into,
// the first of each kind, after which all memory and kernels that it needs are there.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "ops/backend.h"

namespace tandem {

class DeviceSeam {
 public:
  // For the FFN worker: to prepare a step of so many rows in each micro-batch, or to launch it as this epoch.
  struct Order {
    std::vector<std::int64_t> rows;
    std::uint64_t epoch = 0;  // 0: prepare
  };

  // Null where one of the backends has no flags, or cannot reach the other's memory.
  static std::shared_ptr<DeviceSeam> make(Backend& attention, Backend& ffn, std::int32_t layers,
                                          std::int32_t micro_batches, Nanoseconds patience);

  // By micro-batch, in device memory; each side says at the start where its own are.
  std::vector<std::span<std::byte>> hand_overs, returns;
  bool same_memory() const { return same_memory_; }

  StepFlags& attention_flags() { return *attention_flags_; }
  StepFlags& ffn_flags() { return *ffn_flags_; }
  // Of a hand-over, and of its return.
  std::int32_t flag(std::int32_t layer, std::int32_t m) const { return layer * micro_batches_ + m; }

  // ---- the attention worker
  // The FFN worker prepares; false when it has ended, or is not done within the limit.
  bool prepare(std::vector<std::int64_t> rows, Nanoseconds limit);
  // The FFN worker will launch; returns the epoch.
  std::uint64_t start(std::vector<std::int64_t> rows);
  // Returns when it has launched all that it was told to; false as above. Until then this side's device may wait for
  // work that is not there, and whoever waits for the device, as memory that is given back does, would keep it away.
  bool await_launch(Nanoseconds limit);

  // ---- the FFN worker
  void on_order(std::function<void()> wake) { wake_ = std::move(wake); }  // called by start() and prepare()
  std::optional<Order> next();                                            // the oldest that was not taken
  void done();                                                            // with the order that was taken last
  void end();                                                             // takes no more

 private:
  DeviceSeam(std::unique_ptr<StepFlags> attention, std::unique_ptr<StepFlags> ffn, std::int32_t micro_batches);
  void give(Order order);

  std::unique_ptr<StepFlags> attention_flags_, ffn_flags_;
  std::int32_t micro_batches_;
  bool same_memory_;
  std::function<void()> wake_;
  std::uint64_t epoch_ = 0;

  std::mutex mutex_;  // guards what follows
  std::condition_variable done_;
  std::deque<Order> orders_;
  std::uint64_t given_ = 0, finished_ = 0;
  bool ended_ = false;
};

}  // namespace tandem
