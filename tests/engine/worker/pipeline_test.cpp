// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/worker/pipeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <tuple>

#include "base/format.h"
#include "base/rng.h"

namespace tandem {
namespace {

StepShape full_shape(std::int32_t layers, std::int32_t micro_batches, std::int32_t attention, std::int32_t ffn) {
  StepShape shape{layers, micro_batches, attention, ffn, {}};
  shape.occupied.assign(static_cast<std::size_t>(attention * micro_batches), true);
  return shape;
}

StepShape random_shape(Rng& rng) {
  const auto up_to = [&](std::uint64_t most) { return static_cast<std::int32_t>(1 + rng.below(most)); };
  StepShape shape = full_shape(up_to(4), up_to(4), up_to(3), up_to(3));
  for (std::size_t i = 0; i < shape.occupied.size(); ++i) shape.occupied[i] = rng.below(4) > 0;
  return shape;
}

using Edges = std::set<std::pair<std::int32_t, std::int32_t>>;

Edges edges_of(const CommandGraph& graph) {
  Edges edges;
  for (const Command& command : graph.commands())
    for (const std::int32_t next : graph.successors(command.id)) edges.emplace(command.id, next);
  return edges;
}

// What must be done before a command, told once more and in another way: by looking at all pairs.
bool must_precede(const Command& a, const Command& b, const StepShape& shape) {
  using enum CommandKind;
  if (a.micro_batch != b.micro_batch) return false;
  const bool same_layer = a.layer == b.layer, same_attention = a.attention == b.attention, same_ffn = a.ffn == b.ffn;
  switch (b.kind) {
    case kEmbed:
      return false;
    case kAttention:
      return same_attention && (b.layer == 0 ? a.kind == kEmbed : a.kind == kReturn && a.layer == b.layer - 1);
    case kHandOver:
      return a.kind == kAttention && same_layer && same_attention;
    case kExperts:
      return a.kind == kHandOver && same_layer && same_ffn;
    case kReturn:
      return a.kind == kExperts && same_layer && same_ffn;
    case kHead:
      return same_attention && a.kind == kReturn && a.layer == shape.layers - 1;
  }
  return false;
}

TEST(CommandGraph, HasEveryDependencyAndNoOther) {
  Rng rng(1);
  for (int i = 0; i < 60; ++i) {
    const CommandGraph graph(random_shape(rng));
    Edges expected;
    for (const Command& a : graph.commands())
      for (const Command& b : graph.commands())
        if (must_precede(a, b, graph.shape())) expected.emplace(a.id, b.id);
    ASSERT_EQ(edges_of(graph), expected) << "shape " << i;
    for (const Command& b : graph.commands())
      EXPECT_EQ(graph.dependencies(b.id),
                std::count_if(expected.begin(), expected.end(), [&](const auto& edge) { return edge.second == b.id; }));
  }
}

TEST(CommandGraph, CountsOfAFullStep) {
  const CommandGraph graph(full_shape(5, 3, 2, 4));
  std::map<CommandKind, int> counts;
  for (const Command& command : graph.commands()) ++counts[command.kind];
  EXPECT_EQ(counts[CommandKind::kEmbed], 3 * 2);
  EXPECT_EQ(counts[CommandKind::kAttention], 5 * 3 * 2);
  EXPECT_EQ(counts[CommandKind::kHandOver], 5 * 3 * 2 * 4);
  EXPECT_EQ(counts[CommandKind::kExperts], 5 * 3 * 4);
  EXPECT_EQ(counts[CommandKind::kReturn], 5 * 3 * 2 * 4);
  EXPECT_EQ(counts[CommandKind::kHead], 3 * 2);
}

TEST(CommandGraph, IdsAscendByLayerThenMicroBatch) {
  const CommandGraph graph(full_shape(4, 3, 2, 2));
  std::pair last{-1, -1};
  for (const Command& command : graph.commands()) {
    EXPECT_EQ(&command, &graph.commands()[command.id]);
    if (command.kind == CommandKind::kEmbed || command.kind == CommandKind::kHead) continue;
    const std::pair place{command.layer, command.micro_batch};
    EXPECT_LE(last, place);
    last = place;
  }
  for (const auto& [from, to] : edges_of(graph)) EXPECT_LT(from, to);
}

TEST(CommandGraph, FindsEveryCommandByItsPlaceAndNothingElse) {
  Rng rng(2);
  for (int i = 0; i < 20; ++i) {
    const CommandGraph graph(random_shape(rng));
    for (const Command& c : graph.commands())
      EXPECT_EQ(graph.find(c.kind, c.layer, c.micro_batch, std::max(c.attention, 0), std::max(c.ffn, 0)), c.id);
    const StepShape& s = graph.shape();
    for (std::int32_t a = 0; a < s.attention_workers; ++a)
      for (std::int32_t m = 0; m < s.micro_batches; ++m)
        EXPECT_EQ(graph.find(CommandKind::kAttention, 0, m, a, 0) >= 0, s.has(a, m));
    EXPECT_EQ(graph.find(CommandKind::kAttention, s.layers, 0, 0, 0), -1);
    EXPECT_EQ(graph.find(CommandKind::kAttention, -1, 0, 0, 0), -1);
    EXPECT_EQ(graph.find(CommandKind::kAttention, 0, s.micro_batches, 0, 0), -1);
    EXPECT_EQ(graph.find(CommandKind::kAttention, 0, 0, s.attention_workers, 0), -1);
    EXPECT_EQ(graph.find(CommandKind::kExperts, 0, 0, 0, s.ffn_workers), -1);
  }
}

TEST(CommandGraph, AStepWithoutRowsIsEmpty) {
  StepShape shape = full_shape(3, 2, 2, 1);
  shape.occupied.assign(4, false);
  EXPECT_TRUE(CommandGraph(shape).commands().empty());
}

TEST(Pipeline, RemembersGraphsByShape) {
  Pipeline pipeline;
  const CommandGraph& first = pipeline.graph(full_shape(2, 2, 1, 1));
  EXPECT_EQ(first.shape(), full_shape(2, 2, 1, 1));
  EXPECT_EQ(&pipeline.graph(full_shape(2, 2, 1, 1)), &first);
  EXPECT_NE(&pipeline.graph(full_shape(2, 3, 1, 1)), &first);
  for (std::int32_t layers = 1; layers < 300; ++layers)  // more shapes than it keeps
    EXPECT_EQ(pipeline.graph(full_shape(layers, 1, 1, 1)).shape().layers, layers);
}

// Runs a whole step on one runner, completing in random order what runs at the same time.
TEST(Walk, AnyOrderOfCompletionFinishesAndNothingRunsTooEarly) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(format("seed {}", seed));
    Rng rng(seed);
    const CommandGraph graph(random_shape(rng));
    const Edges edges = edges_of(graph);
    Walk walk;
    walk.start(graph, [](const Command&) { return true; });
    std::vector<std::int32_t> running;
    std::size_t started = 0;
    while (!walk.done()) {
      const std::optional<Command> command = rng.below(3) > 0 || running.empty() ? walk.next() : std::nullopt;
      if (command) {
        ++started;
        running.push_back(command->id);
        for (const auto& [from, to] : edges) {
          if (to == command->id) {
            ASSERT_TRUE(walk.is_complete(from));
          }
        }
        continue;
      }
      ASSERT_FALSE(running.empty()) << "nothing runs and nothing is ready";
      const std::size_t which = rng.below(running.size());
      walk.complete(running[which]);
      if (rng.below(4) == 0) walk.complete(running[which]);  // twice changes nothing
      running.erase(running.begin() + static_cast<std::ptrdiff_t>(which));
    }
    EXPECT_EQ(started, graph.commands().size());
    EXPECT_FALSE(walk.next());
  }
}

TEST(Walk, TakesTheLowestReadyCommandFirst) {
  const CommandGraph graph(full_shape(2, 4, 1, 1));
  Walk walk;
  walk.start(graph, [](const Command& c) { return c.kind <= CommandKind::kHandOver; });
  std::vector<std::int32_t> order;
  while (const std::optional<Command> command = walk.next()) {
    order.push_back(command->id);
    walk.complete(command->id);
  }
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  EXPECT_EQ(order.size(), 3u * 4);  // the first layer, then it waits for returns
  EXPECT_FALSE(walk.done());
}

TEST(Walk, WaitsForNewsOfCommandsThatOthersRun) {
  const CommandGraph graph(full_shape(1, 1, 2, 1));
  Walk walk;
  walk.start(graph, [](const Command& c) { return c.kind == CommandKind::kExperts; });
  EXPECT_FALSE(walk.next());
  walk.complete(graph.find(CommandKind::kHandOver, 0, 0, 0, 0));
  EXPECT_FALSE(walk.next()) << "one of two hand-overs is here";
  walk.complete(graph.find(CommandKind::kHandOver, 0, 0, 1, 0));
  const std::optional<Command> experts = walk.next();
  ASSERT_TRUE(experts);
  EXPECT_EQ(experts->kind, CommandKind::kExperts);
  EXPECT_FALSE(walk.done());
  walk.complete(experts->id);
  EXPECT_TRUE(walk.done());
}

// A micro-batch that is given up completes all its commands at once; the others go on as before.
TEST(Walk, AnAbandonedMicroBatchDoesNotStopTheOthers) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(format("seed {}", seed));
    Rng rng(seed);
    const CommandGraph graph(full_shape(3, 3, 1, 2));
    Walk walk;
    walk.start(graph, [](const Command&) { return true; });
    const std::uint64_t when = rng.below(40);
    const auto lost = static_cast<std::int32_t>(rng.below(3));
    std::set<std::int32_t> ran;
    bool abandoned = false;
    for (std::uint64_t i = 0; !walk.done(); ++i) {
      if (i == when) {
        abandoned = true;
        for (const Command& command : graph.commands())
          if (command.micro_batch == lost) walk.complete(command.id);
      }
      const std::optional<Command> command = walk.next();
      if (!command) continue;
      EXPECT_FALSE(abandoned && command->micro_batch == lost);
      EXPECT_TRUE(ran.insert(command->id).second);
      walk.complete(command->id);
    }
    for (const Command& command : graph.commands())
      EXPECT_TRUE(ran.contains(command.id) || command.micro_batch == lost);
  }
}

TEST(CommandKind, HasAName) {
  std::set<std::string_view> names;
  for (int kind = 0; kind <= static_cast<int>(CommandKind::kHead); ++kind)
    names.insert(name(static_cast<CommandKind>(kind)));
  EXPECT_EQ(names.size(), 6u);
}

}  // namespace
}  // namespace tandem
