// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sim/step_timeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/format.h"

namespace tandem {
namespace {

StepShape full_shape(const Layout& layout, std::int32_t layers, std::int32_t micro_batches) {
  StepShape shape{.layers = layers,
                  .micro_batches = micro_batches,
                  .attention_workers = layout.attention_workers,
                  .ffn_workers = std::max(1, layout.ffn_workers)};
  shape.occupied.assign(static_cast<std::size_t>(layout.attention_workers * micro_batches), true);
  return shape;
}

constexpr StepCosts kCosts{.attention_ns_per_row = 100,
                           .experts_ns_per_row = 300,
                           .link_ns_per_row = 7,
                           .fixed_ns = 10,
                           .link_fixed_ns = 5,
                           .link_latency_ns = 1000};

TEST(Lanes, EachHasItsName) {
  const Lanes lanes({.attention_workers = 2, .ffn_workers = 3});
  ASSERT_EQ(lanes.count(), 2 + 3 + 12);
  std::map<std::string, std::int32_t> seen;
  for (std::int32_t lane = 0; lane < lanes.count(); ++lane) seen[lanes.name(lane)] = lane;
  EXPECT_EQ(seen.size(), 17u);
  EXPECT_EQ(seen.at("A1"), 1);
  EXPECT_EQ(seen.at("F2"), 4);
  const CommandGraph graph(full_shape({.attention_workers = 2, .ffn_workers = 3}, 1, 1));
  for (const Command& c : graph.commands()) {
    const std::string name = lanes.name(lanes.of(c));
    switch (c.kind) {
      case CommandKind::kExperts:
        EXPECT_EQ(name, format("F{}", c.ffn));
        break;
      case CommandKind::kHandOver:
        EXPECT_EQ(name, format("A{}>F{}", c.attention, c.ffn));
        break;
      case CommandKind::kReturn:
        EXPECT_EQ(name, format("F{}>A{}", c.ffn, c.attention));
        break;
      default:
        EXPECT_EQ(name, format("A{}", c.attention));
    }
  }
}

TEST(StepTimeline, OneMicroBatchApartTakesTheSumOfItsCommands) {
  const Layout layout{.attention_workers = 1, .ffn_workers = 1};
  const CommandGraph graph(full_shape(layout, 2, 1));
  StepTimeline timeline(layout, kCosts, 1);
  VirtualClock clock;
  clock.advance_to(12345);
  const std::vector<std::int64_t> rows{4};
  const StepTiming timing = timeline.run(graph, rows, clock);
  const Nanoseconds frame = 5 + 4 * 7, layer = 10 + 400 + frame + 1000 + 10 + 1200 + frame + 1000;
  EXPECT_EQ(timing.begin, 12345);
  EXPECT_EQ(timing.duration(), 10 + 2 * layer + 10);
  EXPECT_EQ(clock.now(), timing.end);
  EXPECT_EQ(timing.busy, (std::vector<Nanoseconds>{10 + 2 * 410 + 10, 2 * 1210, 2 * frame, 2 * frame}));
}

TEST(StepTimeline, ALocalLayoutHasNoLinks) {
  const CommandGraph graph(full_shape({}, 2, 2));
  StepTimeline timeline({}, kCosts, 1);
  VirtualClock clock;
  const std::vector<std::int64_t> rows{4, 2};
  const StepTiming timing = timeline.run(graph, rows, clock);
  EXPECT_EQ(timing.duration(), 2 * 20 + 2 * (10 + 400 + 10 + 1200) + 2 * (10 + 200 + 10 + 600));
  EXPECT_EQ(timing.busy, std::vector<Nanoseconds>{timing.duration()});
}

TEST(StepTimeline, MoreExpertsWorkersShareTheRows) {
  const Layout layout{.attention_workers = 1, .ffn_workers = 3};
  const CommandGraph graph(full_shape(layout, 1, 1));
  StepTimeline timeline(layout, {.experts_ns_per_row = 300}, 1);
  VirtualClock clock;
  const std::vector<std::int64_t> rows{4};
  EXPECT_EQ(timeline.run(graph, rows, clock).duration(), 400);
}

TEST(StepTimeline, ALossCostsTheWaitAndTooManyTheMicroBatch) {
  const Layout layout{.attention_workers = 1, .ffn_workers = 1};
  const CommandGraph graph(full_shape(layout, 3, 1));
  StepCosts costs = kCosts;
  costs.loss_probability = 1;
  costs.resend_after_ns = 50'000;
  costs.resends_max = 2;
  StepTimeline timeline(layout, costs, 1);
  VirtualClock clock;
  const std::vector<std::int64_t> rows{4};
  const StepTiming timing = timeline.run(graph, rows, clock);
  EXPECT_EQ(timing.failed, std::vector<std::uint8_t>{1});
  EXPECT_EQ(timing.frames_lost, 3);
  EXPECT_EQ(timing.duration(), 10 + 410 + 33 + 3 * 50'000);
  EXPECT_EQ(timing.busy[1], 0) << "the experts never saw it";
}

// What holds of any run: dependencies, one command at a time, all done or given up.
void check_run(const CommandGraph& graph, const StepTiming& timing, const std::vector<LaneSpan>& spans) {
  std::map<std::int32_t, const LaneSpan*> by_command;
  std::map<std::int32_t, Nanoseconds> free_at, busy;
  for (const LaneSpan& span : spans) {
    EXPECT_TRUE(by_command.emplace(span.command.id, &span).second) << "done twice";
    const auto [lane, first] = free_at.emplace(span.lane, timing.begin);
    EXPECT_GE(span.begin, lane->second) << "two at once";
    EXPECT_GE(span.end, span.begin);
    lane->second = span.end;
    busy[span.lane] += std::min(span.end, timing.end) - span.begin;
  }
  for (const auto& [lane, time] : busy) EXPECT_EQ(timing.busy[lane], time);
  const std::int32_t micro_batches = graph.shape().micro_batches;
  const auto has_failed = [&](const Command& c) {
    return c.attention >= 0 && timing.failed[c.attention * micro_batches + c.micro_batch];
  };
  for (const Command& command : graph.commands()) {
    const auto found = by_command.find(command.id);
    if (found != by_command.end() && !has_failed(command)) {
      EXPECT_LE(found->second->done, timing.end);
      EXPECT_FALSE(found->second->given_up);
      for (const std::int32_t successor : graph.successors(command.id))
        if (const auto next = by_command.find(successor); next != by_command.end())
          EXPECT_LE(found->second->done, next->second->begin);
    } else if (found == by_command.end() && command.kind != CommandKind::kExperts) {
      EXPECT_TRUE(has_failed(command)) << "left out: " << name(command.kind);
    }
  }
}

TEST(StepTimeline, WhateverIsLostTheOrderHolds) {
  std::int64_t failed = 0, well = 0;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(format("seed {}", seed));
    Rng rng(seed);
    const auto up_to = [&](std::uint64_t most) { return static_cast<std::int32_t>(1 + rng.below(most)); };
    const Layout layout{.attention_workers = up_to(3), .ffn_workers = up_to(3)};
    StepShape shape = full_shape(layout, up_to(4), up_to(4));
    std::vector<std::int64_t> rows;
    for (std::size_t i = 0; i < shape.occupied.size(); ++i) {
      rows.push_back(static_cast<std::int64_t>(rng.below(5)));
      shape.occupied[i] = rows.back() > 0;
    }
    const CommandGraph graph(shape);
    StepCosts costs = kCosts;
    costs.jitter = 1;
    costs.loss_probability = seed % 2 == 0 ? 0 : 0.05;
    costs.resend_after_ns = 3000;
    costs.resends_max = 0;
    StepTimeline timeline(layout, costs, seed);
    VirtualClock clock;
    std::vector<LaneSpan> spans;
    const StepTiming timing = timeline.run(graph, rows, clock, &spans);
    check_run(graph, timing, spans);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (seed % 2 == 0 || rows[i] == 0) {
        EXPECT_EQ(timing.failed[i], 0);
      }
      (timing.failed[i] ? failed : well) += rows[i] > 0;
    }
  }
  EXPECT_GT(failed, 50);
  EXPECT_GT(well, 50);
}

}  // namespace
}  // namespace tandem
