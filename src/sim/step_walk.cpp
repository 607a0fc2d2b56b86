// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sim/step_walk.h"

#include "base/check.h"
#include "base/format.h"

namespace tandem {

std::int32_t Lanes::count() const {
  return layout_.local() ? 1 : layout_.workers() + 2 * links();
}

std::int32_t Lanes::of(const Command& command) const {
  if (layout_.local()) return 0;
  switch (command.kind) {
    case CommandKind::kEmbed:
    case CommandKind::kAttention:
    case CommandKind::kHead:
      return attention(command.attention);
    case CommandKind::kExperts:
      return ffn(command.ffn);
    case CommandKind::kHandOver:
      return layout_.workers() + command.attention * layout_.ffn_workers + command.ffn;
    case CommandKind::kReturn:
      return layout_.workers() + links() + command.attention * layout_.ffn_workers + command.ffn;
  }
  return 0;
}

std::string Lanes::name(std::int32_t lane) const {
  if (layout_.local()) return "A0 and F0";
  if (lane < layout_.attention_workers) return format("A{}", lane);
  if (lane < layout_.workers()) return format("F{}", lane - layout_.attention_workers);
  const std::int32_t link = lane - layout_.workers(), pair = link % links();
  const std::string a = format("A{}", pair / layout_.ffn_workers), f = format("F{}", pair % layout_.ffn_workers);
  return link < links() ? a + "→" + f : f + "→" + a;
}

StepTimes StepWalk::run(const CommandGraph& graph, const Duration& duration, std::span<const Loss> losses,
                        const StepListener& listener) {
  times_ = {clock_.now(), clock_.now(), std::vector<LaneUse>(static_cast<std::size_t>(lanes_.count()))};
  states_.assign(static_cast<std::size_t>(lanes_.count()), {});
  lost_.assign(losses.size(), false);
  walk_.start(graph, [](const Command&) { return true; });
  start_ready(duration, losses);
  // Beyond the last command there may be ends of what was given up while it ran.
  while (!walk_.done()) {
    TANDEM_CHECK(!ends_.empty(), "commands are left, none is ready and nothing is under way");
    const End end = ends_.top();
    ends_.pop();
    clock_.advance_to(end.time);
    if (end.command == kNoCommand)
      give_up(losses[static_cast<std::size_t>(end.loss)], listener);
    else
      finish(end.command, listener);
    start_ready(duration, losses);
  }
  ends_ = {};
  times_.end = clock_.now();
  return times_;
}

void StepWalk::start_ready(const Duration& duration, std::span<const Loss> losses) {
  while (const std::optional<Command> command = walk_.next())
    states_[static_cast<std::size_t>(lanes_.of(*command))].ready.push(command->id);
  for (std::size_t lane = 0; lane < states_.size(); ++lane) {
    Lane& state = states_[lane];
    while (!state.working && !state.ready.empty()) {
      const std::int32_t id = state.ready.top();
      state.ready.pop();
      if (walk_.is_complete(id)) continue;  // given up meanwhile
      start(static_cast<std::int32_t>(lane), walk_.graph().commands()[static_cast<std::size_t>(id)], duration, losses);
    }
  }
}

void StepWalk::start(std::int32_t lane, const Command& command, const Duration& duration,
                     std::span<const Loss> losses) {
  for (std::size_t i = 0; i < losses.size(); ++i) {
    const Loss& loss = losses[i];
    if (command.kind != CommandKind::kHandOver || loss.layer != command.layer ||
        loss.micro_batch != command.micro_batch || loss.attention != command.attention)
      continue;
    if (!lost_[i]) push(clock_.now() + loss.given_up_after, kNoCommand, static_cast<std::int32_t>(i));
    lost_[i] = true;
    return;  // it never ends, and takes no time of the link
  }
  Lane& state = states_[static_cast<std::size_t>(lane)];
  LaneUse& use = times_.lanes[static_cast<std::size_t>(lane)];
  const Nanoseconds time = duration(command);
  if (state.used) use.bubbles += clock_.now() - state.idle_since;
  use.busy += time;
  state.used = state.working = true;
  state.idle_since = clock_.now() + time;
  push(state.idle_since, command.id, 0);
}

void StepWalk::finish(std::int32_t id, const StepListener& listener) {
  const Command& command = walk_.graph().commands()[static_cast<std::size_t>(id)];
  states_[static_cast<std::size_t>(lanes_.of(command))].working = false;
  if (walk_.is_complete(id)) return;  // given up while it ran
  if (listener.done) listener.done(command);
  walk_.complete(id);
}

void StepWalk::give_up(const Loss& loss, const StepListener& listener) {
  if (listener.given_up) listener.given_up(loss.attention, loss.micro_batch);
  // Experts serve all attention workers: they run for those who are left, if any.
  bool others = false;
  const StepShape& shape = walk_.graph().shape();
  for (std::int32_t a = 0; a < shape.attention_workers; ++a)
    others |= a != loss.attention && shape.has(a, loss.micro_batch);
  for (const Command& command : walk_.graph().commands()) {
    if (command.micro_batch != loss.micro_batch) continue;
    if (command.attention == loss.attention || (command.attention < 0 && !others)) walk_.complete(command.id);
  }
}

void StepWalk::push(Nanoseconds time, std::int32_t command, std::int32_t loss) {
  ends_.push({time, order_++, command, loss});
}

}  // namespace tandem
