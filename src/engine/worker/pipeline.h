// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The order of a step: every layer of every micro-batch goes attention → hand-over → experts → return, and lanes
// (attention workers, FFN workers, the links between them) work at the same time. For the shape of a step, Pipeline
// emits the whole command graph; whoever runs it walks it by completion (Walk): worker threads live, the simulator on a
// virtual clock. Nothing here waits, sends or computes.
//
//   embed(m) → attention(0, m) → hand_over(0, m, f)… → experts(0, m, f) → return(0, m, f)… → attention(1, m) → … →
//   head(m)
//
// Command ids ascend layer by layer and, within one, micro-batch by micro-batch: the order in which a lane prefers
// them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace tandem {

enum class CommandKind : std::uint8_t { kEmbed, kAttention, kHandOver, kExperts, kReturn, kHead };
std::string_view name(CommandKind kind);

struct Command {
  std::int32_t id = 0;
  CommandKind kind = CommandKind::kEmbed;
  std::int32_t layer = 0;
  std::int32_t micro_batch = 0;
  std::int32_t attention = -1;  // worker; -1: kExperts, which serves all
  std::int32_t ffn = -1;        // worker; -1: kEmbed, kAttention, kHead
};

// What decides the graph: which micro-batches of which attention worker have rows.
struct StepShape {
  std::int32_t layers = 0;
  std::int32_t micro_batches = 0;
  std::int32_t attention_workers = 0;
  std::int32_t ffn_workers = 0;
  std::vector<bool> occupied;  // [attention_workers · micro_batches], worker-major

  bool has(std::int32_t attention, std::int32_t m) const { return occupied[attention * micro_batches + m]; }
  auto operator<=>(const StepShape&) const = default;
};

class CommandGraph {
 public:
  explicit CommandGraph(const StepShape& shape);

  const StepShape& shape() const { return shape_; }
  std::span<const Command> commands() const { return commands_; }
  std::int32_t dependencies(std::int32_t id) const { return dependencies_[id]; }  // how many
  std::span<const std::int32_t> successors(std::int32_t id) const;

  // The id of a command, or -1 when the shape has none. Unused coordinates are 0.
  std::int32_t find(CommandKind kind, std::int32_t layer, std::int32_t m, std::int32_t attention,
                    std::int32_t ffn) const;

 private:
  void add(CommandKind kind, std::int32_t layer, std::int32_t m, std::int32_t attention, std::int32_t ffn);
  void add_layer(std::int32_t layer, std::int32_t m);
  std::size_t index(CommandKind kind, std::int32_t layer, std::int32_t m, std::int32_t attention,
                    std::int32_t ffn) const;

  StepShape shape_;
  std::vector<Command> commands_;
  std::vector<std::int32_t> by_place_;  // command ids by (kind, layer, m, attention, ffn)
  std::vector<std::int32_t> dependencies_;
  std::vector<std::int32_t> successors_, successor_begin_;
};

// Graphs by shape, made once each; a decoding engine meets few shapes. One thread.
class Pipeline {
 public:
  const CommandGraph& graph(const StepShape& shape);

 private:
  static constexpr std::size_t kGraphsMax = 64;
  std::map<StepShape, std::unique_ptr<CommandGraph>> graphs_;
};

// One step's progress through a graph, for a runner that executes the commands which mine accepts; the others are
// completed by news from elsewhere (a frame arrived). Reused from step to step without allocation once it has seen the
// largest graph.
class Walk {
 public:
  template <class Mine>
  void start(const CommandGraph& graph, const Mine& mine) {
    reset(graph);
    for (const Command& command : graph.commands()) {
      mine_[command.id] = mine(command);
      remaining_ += mine_[command.id];
    }
    for (const Command& command : graph.commands())
      if (graph.dependencies(command.id) == 0) push_if_mine(command.id);
  }

  // The lowest-numbered command that can run now, taken off the list; nothing when all that is left waits for news.
  std::optional<Command> next();
  // The command is done: its successors may become ready. Doing it twice changes nothing.
  void complete(std::int32_t id);
  bool is_complete(std::int32_t id) const { return complete_[id]; }
  // All commands of this runner are complete.
  bool done() const { return remaining_ == 0; }
  const CommandGraph& graph() const { return *graph_; }

 private:
  void reset(const CommandGraph& graph);
  void push_if_mine(std::int32_t id);

  const CommandGraph* graph_ = nullptr;
  std::vector<std::int32_t> missing_;  // dependencies still open
  std::vector<std::uint8_t> mine_, complete_;
  std::vector<std::int32_t> ready_;  // a heap, lowest id first
  std::int32_t remaining_ = 0;
};

}  // namespace tandem
