// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One step on a virtual clock: the command graph that the engine's workers walk, walked by one runner that charges each
// command its time. Lanes work at the same time and each does one command after the other, the lowest ready one first,
// as the workers do. Nothing is computed; whoever listens hears when a command has ended.
//
// It is a discrete-event simulation in its plainest form: a queue of ends, ordered by time.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/worker/layout.h"
#include "engine/worker/pipeline.h"

namespace tandem {

// Lanes of a layout: attention workers, FFN workers, then a link each way between every two of them. In the local
// layout all is one lane.
class Lanes {
 public:
  explicit Lanes(const Layout& layout) : layout_(layout) {}

  std::int32_t count() const;
  std::int32_t of(const Command& command) const;
  std::int32_t attention(std::int32_t a) const { return a; }
  std::int32_t ffn(std::int32_t f) const { return layout_.local() ? 0 : layout_.attention_workers + f; }
  std::string name(std::int32_t lane) const;  // "A0", "F1", "A0→F1"

 private:
  std::int32_t links() const { return layout_.attention_workers * layout_.ffn_workers; }
  Layout layout_;
};

struct LaneUse {
  Nanoseconds busy = 0;
  Nanoseconds bubbles = 0;  // idle between its first and its last command
};

struct StepTimes {
  Nanoseconds begin = 0, end = 0;
  std::vector<LaneUse> lanes;

  Nanoseconds duration() const { return end - begin; }
};

// The hand-over of a micro-batch that does not get through: its worker waits, then gives it up.
struct Loss {
  std::int32_t attention = 0, micro_batch = 0, layer = 0;
  Nanoseconds given_up_after = 0;
};

struct StepListener {
  std::function<void(const Command&)> done;  // it ran to its end
  std::function<void(std::int32_t attention, std::int32_t micro_batch)> given_up = {};
};

class StepWalk {
 public:
  using Duration = std::function<Nanoseconds(const Command&)>;

  StepWalk(const Layout& layout, VirtualClock& clock) : lanes_(layout), clock_(clock) {}

  // Walks the graph from the clock's time on, and moves the clock to the step's end.
  StepTimes run(const CommandGraph& graph, const Duration& duration, std::span<const Loss> losses,
                const StepListener& listener);
  const Lanes& lanes() const { return lanes_; }

 private:
  static constexpr std::int32_t kNoCommand = -1;
  struct End {
    Nanoseconds time;
    std::uint64_t order;   // of events at the same time
    std::int32_t command;  // kNoCommand: loss gives up
    std::int32_t loss;
    bool operator>(const End& other) const { return time != other.time ? time > other.time : order > other.order; }
  };
  struct Lane {
    std::priority_queue<std::int32_t, std::vector<std::int32_t>, std::greater<>> ready;  // lowest id first
    bool working = false, used = false;
    Nanoseconds idle_since = 0;
  };

  void start_ready(const Duration& duration, std::span<const Loss> losses);
  void start(std::int32_t lane, const Command& command, const Duration& duration, std::span<const Loss> losses);
  void finish(std::int32_t id, const StepListener& listener);
  void give_up(const Loss& loss, const StepListener& listener);
  void push(Nanoseconds time, std::int32_t command, std::int32_t loss);

  Lanes lanes_;
  VirtualClock& clock_;
  Walk walk_;
  StepTimes times_;
  std::vector<Lane> states_;
  std::priority_queue<End, std::vector<End>, std::greater<>> ends_;
  std::vector<bool> lost_;  // losses that have begun
  std::uint64_t order_ = 0;
};

}  // namespace tandem
