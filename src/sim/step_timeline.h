// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A step's command graph on a virtual clock: lanes do one command at a time, in the order of ids, and every command
// takes what a few numbers say it takes. Frames may get lost; they are sent again, and after too many losses a
// micro-batch is given up as in the engine. Computes nothing and knows no requests: the rows of each micro-batch go in,
// times come out.
#pragma once

#include <cstdint>
#include <queue>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/rng.h"
#include "engine/layout.h"
#include "engine/pipeline.h"

namespace tandem {

struct StepCosts {
  double attention_ns_per_row = 0;
  double experts_ns_per_row = 0;    // of all FFN workers together: they share a row evenly
  double link_ns_per_row = 0;       // how long a frame keeps its link
  Nanoseconds fixed_ns = 0;         // of each command of a worker; all that embed and head take
  Nanoseconds link_fixed_ns = 0;    // of each frame
  Nanoseconds link_latency_ns = 0;  // from a frame's leaving the link to its arrival; the link is free meanwhile
  double jitter = 0;                // each duration is stretched by a random part of itself, at most this one
  double loss_probability = 0;      // of each sending of a frame
  Nanoseconds resend_after_ns = 0;  // from a loss to the next try
  std::int32_t resends_max = 3;     // one more loss, and the micro-batch of its attention worker fails
};

// The lanes of a layout: attention workers, FFN workers, links from A to F, links from F to A. A local layout has one
// lane and no links.
class Lanes {
 public:
  static constexpr std::int32_t kNone = -1;
  explicit Lanes(const Layout& layout);

  std::int32_t count() const;
  std::int32_t workers() const { return layout_.workers(); }  // the first lanes; the others are links
  std::int32_t attention(std::int32_t a) const { return a; }
  std::int32_t ffn(std::int32_t f) const { return layout_.local() ? 0 : layout_.attention_workers + f; }
  std::int32_t of(const Command& command) const;  // kNone: needs no lane and no time
  bool is_link(std::int32_t lane) const { return lane >= workers(); }
  std::string name(std::int32_t lane) const;  // "A0", "F1", "A0>F1", "F1>A0"

 private:
  Layout layout_;
};

// One command's time on its lane. A frame arrives after end; what is given up never does, and done is then when its
// sender stops waiting.
struct LaneSpan {
  Command command;
  std::int32_t lane = 0;
  Nanoseconds begin = 0, end = 0, done = 0;
  bool given_up = false;
};

struct StepTiming {
  Nanoseconds begin = 0, end = 0;
  std::vector<Nanoseconds> busy;     // by lane
  std::vector<std::uint8_t> failed;  // by micro-batch, as StepShape::occupied
  std::int64_t frames_lost = 0;

  Nanoseconds duration() const { return end - begin; }
  bool operator==(const StepTiming&) const = default;
};

class StepTimeline {
 public:
  StepTimeline(const Layout& layout, const StepCosts& costs, std::uint64_t seed);

  // Runs one step, from clock.now() on, and leaves the clock at its end. rows: of each micro-batch, as
  // StepShape::occupied. record, if given, gets the spans in the order in which they begin.
  StepTiming run(const CommandGraph& graph, std::span<const std::int64_t> rows, VirtualClock& clock,
                 std::vector<LaneSpan>* record = nullptr);
  const Lanes& lanes() const { return lanes_; }

 private:
  enum class EventKind : std::uint8_t { kLaneFree, kArrived, kGivenUp };
  struct Event {
    Nanoseconds time = 0;
    std::uint64_t ordinal = 0;  // events of one moment happen in the order in which they were made
    EventKind kind = EventKind::kLaneFree;
    std::int32_t command = 0;
    bool operator>(const Event& other) const {
      return time != other.time ? time > other.time : ordinal > other.ordinal;
    }
  };
  template <class T>
  using SmallestFirst = std::priority_queue<T, std::vector<T>, std::greater<>>;
  struct Lane {
    SmallestFirst<std::int32_t> ready;  // command ids
    std::int32_t running = -1;
    Nanoseconds since = 0;
  };

  void reset(const CommandGraph& graph);
  void handle(const Event& event);
  void hand_out_ready();
  void start_next(std::int32_t lane);
  void send(const Command& command, LaneSpan& span);
  void give_up(const Command& command);
  void push(EventKind kind, Nanoseconds time, std::int32_t command);

  std::int64_t rows_of(const Command& command) const;
  Nanoseconds duration_of(const Command& command);

  Lanes lanes_;
  StepCosts costs_;
  Rng rng_;
  Walk walk_;
  std::vector<Lane> lane_states_;
  SmallestFirst<Event> events_;
  std::uint64_t events_made_ = 0;
  // Of the step that runs.
  std::span<const std::int64_t> rows_;
  Nanoseconds now_ = 0;
  StepTiming timing_;
  std::vector<LaneSpan>* record_ = nullptr;
};

}  // namespace tandem
