// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sim/step_timeline.h"

#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/format.h"

namespace tandem {

// ---- lanes

Lanes::Lanes(const Layout& layout) : layout_(layout) {
  TANDEM_CHECK(layout.attention_workers > 0 && (!layout.local() || layout.attention_workers == 1),
               "a local layout has one worker");
}

std::int32_t Lanes::count() const {
  return workers() + 2 * layout_.attention_workers * layout_.ffn_workers;
}

std::int32_t Lanes::of(const Command& command) const {
  const bool is_frame = command.kind == CommandKind::kHandOver || command.kind == CommandKind::kReturn;
  if (command.kind == CommandKind::kExperts) return ffn(command.ffn);
  if (!is_frame) return attention(command.attention);
  if (layout_.local()) return kNone;
  const std::int32_t links = layout_.attention_workers * layout_.ffn_workers;  // of one direction
  return workers() + (command.kind == CommandKind::kReturn ? links : 0) + command.attention * layout_.ffn_workers +
         command.ffn;
}

std::string Lanes::name(std::int32_t lane) const {
  if (lane < layout_.attention_workers) return format("A{}", lane);
  if (!is_link(lane)) return format("F{}", lane - layout_.attention_workers);
  const std::int32_t links = layout_.attention_workers * layout_.ffn_workers, link = lane - workers();
  const std::int32_t a = link % links / layout_.ffn_workers, f = link % layout_.ffn_workers;
  return link < links ? format("A{}>F{}", a, f) : format("F{}>A{}", f, a);
}

// ---- a step

StepTimeline::StepTimeline(const Layout& layout, const StepCosts& costs, std::uint64_t seed)
    : lanes_(layout), costs_(costs), rng_(seed), lane_states_(static_cast<std::size_t>(lanes_.count())) {}

StepTiming StepTimeline::run(const CommandGraph& graph, std::span<const std::int64_t> rows, VirtualClock& clock,
                             std::vector<LaneSpan>* record) {
  TANDEM_CHECK(rows.size() == graph.shape().occupied.size(), "rows of other micro-batches than the graph's");
  rows_ = rows;
  record_ = record;
  now_ = clock.now();
  reset(graph);
  hand_out_ready();
  while (!walk_.done()) {
    TANDEM_CHECK(!events_.empty(), "commands are left and nothing is under way");
    const Event event = events_.top();
    events_.pop();
    now_ = event.time;
    clock.advance_to(now_);
    handle(event);
  }
  timing_.end = now_;
  for (std::size_t i = 0; i < lane_states_.size(); ++i)  // a frame of a micro-batch that was given up may be under way
    if (lane_states_[i].running >= 0) timing_.busy[i] += now_ - lane_states_[i].since;
  return std::exchange(timing_, {});
}

void StepTimeline::reset(const CommandGraph& graph) {
  walk_.start(graph, [](const Command&) { return true; });
  for (Lane& lane : lane_states_) lane = {};
  events_ = {};
  timing_ = {.begin = now_,
             .busy = std::vector<Nanoseconds>(lane_states_.size()),
             .failed = std::vector<std::uint8_t>(graph.shape().occupied.size())};
}

void StepTimeline::handle(const Event& event) {
  const Command& command = walk_.graph().commands()[event.command];
  switch (event.kind) {
    case EventKind::kLaneFree: {
      const std::int32_t index = lanes_.of(command);
      Lane& lane = lane_states_[index];
      timing_.busy[index] += now_ - lane.since;
      lane.running = -1;
      if (!lanes_.is_link(index)) walk_.complete(command.id);
      hand_out_ready();  // first: what this very command made ready may come before what waits already
      start_next(index);
      break;
    }
    case EventKind::kArrived:
      walk_.complete(command.id);
      hand_out_ready();
      break;
    case EventKind::kGivenUp:
      give_up(command);
      hand_out_ready();
      break;
  }
}

void StepTimeline::hand_out_ready() {
  while (const std::optional<Command> command = walk_.next()) {
    const std::int32_t lane = lanes_.of(*command);
    if (lane == Lanes::kNone || rows_of(*command) == 0) {  // no rows: all of its micro-batch was given up before
      walk_.complete(command->id);
      continue;
    }
    lane_states_[lane].ready.push(command->id);
    start_next(lane);
  }
}

void StepTimeline::start_next(std::int32_t index) {
  Lane& lane = lane_states_[index];
  while (lane.running < 0 && !lane.ready.empty()) {
    const Command& command = walk_.graph().commands()[lane.ready.top()];
    lane.ready.pop();
    if (walk_.is_complete(command.id)) continue;  // given up while it waited
    lane.running = command.id;
    lane.since = now_;
    const Nanoseconds end = now_ + duration_of(command);
    LaneSpan span{.command = command, .lane = index, .begin = now_, .end = end, .done = end};
    push(EventKind::kLaneFree, end, command.id);
    if (lanes_.is_link(index)) send(command, span);
    if (record_ != nullptr) record_->push_back(span);
  }
}

// Decides the fate of a frame that is about to leave.
void StepTimeline::send(const Command& command, LaneSpan& span) {
  std::int32_t losses = 0;
  while (losses <= costs_.resends_max && costs_.loss_probability > 0 && rng_.uniform() < costs_.loss_probability)
    ++losses;
  timing_.frames_lost += losses;
  span.given_up = losses > costs_.resends_max;
  span.done += losses * costs_.resend_after_ns + (span.given_up ? 0 : costs_.link_latency_ns);
  push(span.given_up ? EventKind::kGivenUp : EventKind::kArrived, span.done, command.id);
}

// The attention worker stops waiting for this micro-batch. Those of the other workers go on.
void StepTimeline::give_up(const Command& command) {
  const StepShape& shape = walk_.graph().shape();
  timing_.failed[command.attention * shape.micro_batches + command.micro_batch] = 1;
  for (const Command& other : walk_.graph().commands())
    if (other.attention == command.attention && other.micro_batch == command.micro_batch) walk_.complete(other.id);
}

void StepTimeline::push(EventKind kind, Nanoseconds time, std::int32_t command) {
  events_.push({time, ++events_made_, kind, command});
}

// ---- what a command takes

std::int64_t StepTimeline::rows_of(const Command& command) const {
  const StepShape& shape = walk_.graph().shape();
  std::int64_t rows = 0;
  for (std::int32_t a = 0; a < shape.attention_workers; ++a) {
    const std::int32_t index = a * shape.micro_batches + command.micro_batch;
    if ((command.attention < 0 || command.attention == a) && !timing_.failed[index]) rows += rows_[index];
  }
  return rows;
}

Nanoseconds StepTimeline::duration_of(const Command& command) {
  const auto rows = static_cast<double>(rows_of(command));
  double ns = 0;
  switch (command.kind) {
    case CommandKind::kEmbed:
    case CommandKind::kHead:
      ns = static_cast<double>(costs_.fixed_ns);
      break;
    case CommandKind::kAttention:
      ns = static_cast<double>(costs_.fixed_ns) + rows * costs_.attention_ns_per_row;
      break;
    case CommandKind::kExperts:
      ns = static_cast<double>(costs_.fixed_ns) + rows * costs_.experts_ns_per_row / walk_.graph().shape().ffn_workers;
      break;
    case CommandKind::kHandOver:
    case CommandKind::kReturn:
      ns = static_cast<double>(costs_.link_fixed_ns) + rows * costs_.link_ns_per_row;
      break;
  }
  return std::llround(ns * (1 + costs_.jitter * rng_.uniform()));
}

}  // namespace tandem
