// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sim/step_walk.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/format.h"
#include "base/rng.h"

namespace tandem {
namespace {

constexpr Nanoseconds kStage = 100'000;

StepShape full_shape(const Layout& layout, std::int32_t layers, std::int32_t micro_batches) {
  StepShape shape{layers, micro_batches, layout.attention_workers, layout.local() ? 1 : layout.ffn_workers, {}};
  shape.occupied.assign(static_cast<std::size_t>(layout.attention_workers * micro_batches), true);
  return shape;
}

// Attention and experts take a stage each, a link a part of it.
Nanoseconds even(const Command& command, Nanoseconds link) {
  switch (command.kind) {
    case CommandKind::kAttention:
    case CommandKind::kExperts:
      return kStage;
    case CommandKind::kHandOver:
    case CommandKind::kReturn:
      return link;
    default:
      return 0;
  }
}

// Busy parts of the first attention and the first FFN worker in a step of 61 layers.
std::pair<double, double> busy(const Layout& layout, std::int32_t micro_batches, Nanoseconds link) {
  VirtualClock clock;
  StepWalk walk(layout, clock);
  const CommandGraph graph(full_shape(layout, 61, micro_batches));
  const StepTimes times = walk.run(graph, [=](const Command& c) { return even(c, link); }, {}, {});
  const auto part = [&](std::int32_t lane) {
    return static_cast<double>(times.lanes[static_cast<std::size_t>(lane)].busy) /
           static_cast<double>(times.duration());
  };
  return {part(walk.lanes().attention(0)), part(walk.lanes().ffn(0))};
}

TEST(StepWalk, ThreeMicroBatchesKeepBothSidesBusy) {
  for (const Layout layout : {Layout{1, 1}, Layout{2, 1}, Layout{2, 2}, Layout{3, 3}}) {
    const auto [a, f] = busy(layout, 3, kStage / 2);
    EXPECT_GT(a, 0.9) << to_string(layout);
    EXPECT_GT(f, 0.9) << to_string(layout);
  }
}

TEST(StepWalk, OneMicroBatchLeavesOneSideIdleAtAnyTime) {
  const auto [a, f] = busy({1, 1}, 1, 0);
  EXPECT_NEAR(a, 0.5, 1e-9);
  EXPECT_NEAR(f, 0.5, 1e-9);
  EXPECT_NEAR(busy({1, 1}, 1, kStage / 2).first, 1.0 / 3, 1e-9);  // and the links idle too
}

TEST(StepWalk, TwoMicroBatchesHideNoLink) {
  EXPECT_GT(busy({1, 1}, 2, 0).first, 0.98);
  EXPECT_NEAR(busy({1, 1}, 2, kStage / 2).first, 2.0 / 3, 0.02);  // a round of 3 stages' time holds 2 of attention
}

TEST(StepWalk, TheLocalLayoutDoesOneThingAfterTheOther) {
  VirtualClock clock;
  clock.advance_to(77);
  StepWalk walk(Layout{}, clock);
  const CommandGraph graph(full_shape(Layout{}, 5, 2));
  const StepTimes times = walk.run(graph, [](const Command& c) { return even(c, 0); }, {}, {});
  EXPECT_EQ(times.begin, 77);
  EXPECT_EQ(times.duration(), 2 * 5 * 2 * kStage);
  EXPECT_EQ(clock.now(), times.end);
  ASSERT_EQ(times.lanes.size(), 1u);
  EXPECT_EQ(times.lanes[0].busy, times.duration());
  EXPECT_EQ(times.lanes[0].bubbles, 0);
}

TEST(StepWalk, BubblesAreIdleTimeBetweenCommands) {
  VirtualClock clock;
  StepWalk walk(Layout{1, 1}, clock);
  const CommandGraph graph(full_shape({1, 1}, 3, 1));
  const StepTimes times = walk.run(graph, [](const Command& c) { return even(c, 10); }, {}, {});
  EXPECT_EQ(times.duration(), 3 * (2 * kStage + 20));
  EXPECT_EQ(times.lanes[1].busy, 3 * kStage);
  EXPECT_EQ(times.lanes[1].bubbles, 2 * (kStage + 20));
  EXPECT_EQ(walk.lanes().name(1), "F0");
}

TEST(Lanes, HaveNamesOfTheirOwn) {
  const Layout layout{2, 3};
  const Lanes lanes(layout);
  std::set<std::string> names;
  for (std::int32_t lane = 0; lane < lanes.count(); ++lane) names.insert(lanes.name(lane));
  EXPECT_EQ(std::ssize(names), 2 + 3 + 2 * 2 * 3);
  EXPECT_EQ(lanes.name(lanes.of({.kind = CommandKind::kHandOver, .attention = 1, .ffn = 2})), "A1→F2");
  EXPECT_EQ(lanes.name(lanes.of({.kind = CommandKind::kReturn, .attention = 0, .ffn = 1})), "F1→A0");
  EXPECT_EQ(lanes.name(lanes.of({.kind = CommandKind::kExperts, .ffn = 2})), "F2");
}

// Whatever commands cost: each runs once, after what it depends on, and no lane does two things at once.
TEST(StepWalk, KeepsOrderAndLanesWhateverCommandsCost) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(format("seed {}", seed));
    Rng rng(seed);
    const Layout layout{static_cast<std::int32_t>(1 + rng.below(3)), static_cast<std::int32_t>(1 + rng.below(3))};
    StepShape shape =
        full_shape(layout, static_cast<std::int32_t>(1 + rng.below(4)), static_cast<std::int32_t>(1 + rng.below(4)));
    for (std::size_t i = 0; i < shape.occupied.size(); ++i) shape.occupied[i] = rng.below(4) > 0;
    const CommandGraph graph(shape);
    VirtualClock clock;
    StepWalk walk(layout, clock);
    std::vector<Nanoseconds> begin(graph.commands().size(), -1), end(graph.commands().size(), -1);
    walk.run(graph,
             [&](const Command& c) {
               begin[static_cast<std::size_t>(c.id)] = clock.now();
               return static_cast<Nanoseconds>(rng.below(50));
             },
             {}, {.done = [&](const Command& c) {
               EXPECT_EQ(end[static_cast<std::size_t>(c.id)], -1);
               end[static_cast<std::size_t>(c.id)] = clock.now();
             }});
    std::map<std::int32_t, std::vector<std::pair<Nanoseconds, Nanoseconds>>> spans;
    for (const Command& c : graph.commands()) {
      const auto id = static_cast<std::size_t>(c.id);
      ASSERT_GE(end[id], begin[id]) << "command " << c.id << " did not run";
      for (const std::int32_t next : graph.successors(c.id)) EXPECT_GE(begin[static_cast<std::size_t>(next)], end[id]);
      spans[walk.lanes().of(c)].emplace_back(begin[id], end[id]);
    }
    for (auto& [lane, list] : spans) {
      std::sort(list.begin(), list.end());
      for (std::size_t i = 1; i < list.size(); ++i) EXPECT_GE(list[i].first, list[i - 1].second);
    }
  }
}

TEST(StepWalk, ALostMicroBatchIsGivenUpAndTheOthersGoOn) {
  const Layout layout{2, 2};
  VirtualClock clock;
  StepWalk walk(layout, clock);
  const CommandGraph graph(full_shape(layout, 4, 3));
  const Loss loss{.attention = 1, .micro_batch = 2, .layer = 1, .given_up_after = 50 * kStage};
  std::set<std::pair<std::int32_t, std::int32_t>> heads;
  int given_up = 0;
  const StepTimes times = walk.run(graph, [](const Command& c) { return even(c, 10); }, {&loss, 1},
                                   {.done =
                                        [&](const Command& c) {
                                          if (c.kind == CommandKind::kHead) heads.emplace(c.attention, c.micro_batch);
                                          EXPECT_FALSE(c.attention == 1 && c.micro_batch == 2 && c.layer > 1);
                                        },
                                    .given_up =
                                        [&](std::int32_t a, std::int32_t m) {
                                          EXPECT_EQ(std::pair(a, m), std::pair(1, 2));
                                          ++given_up;
                                        }});
  EXPECT_EQ(given_up, 1);
  EXPECT_EQ(heads.size(), 5u);  // of 6
  EXPECT_FALSE(heads.contains({1, 2}));
  EXPECT_GT(times.duration(), 50 * kStage);
}

}  // namespace
}  // namespace tandem
