// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/worker/pipeline.h"

#include <algorithm>
#include <functional>

#include "base/check.h"

namespace tandem {

std::string_view name(CommandKind kind) {
  switch (kind) {
    case CommandKind::kEmbed:
      return "embed";
    case CommandKind::kAttention:
      return "attention";
    case CommandKind::kHandOver:
      return "hand_over";
    case CommandKind::kExperts:
      return "experts";
    case CommandKind::kReturn:
      return "return";
    case CommandKind::kHead:
      return "head";
  }
  return "unknown";
}

namespace {
constexpr std::int32_t kKinds = 6;
}

CommandGraph::CommandGraph(const StepShape& shape) : shape_(shape) {
  TANDEM_CHECK(shape.layers > 0 && shape.ffn_workers > 0 && shape.attention_workers > 0,
               "a step without layers or workers");
  by_place_.assign(static_cast<std::size_t>(kKinds) * shape.layers * shape.micro_batches * shape.attention_workers *
                       shape.ffn_workers,
                   -1);
  for (std::int32_t m = 0; m < shape.micro_batches; ++m)
    for (std::int32_t a = 0; a < shape.attention_workers; ++a)
      if (shape.has(a, m)) add(CommandKind::kEmbed, 0, m, a, -1);
  for (std::int32_t layer = 0; layer < shape.layers; ++layer)
    for (std::int32_t m = 0; m < shape.micro_batches; ++m) add_layer(layer, m);
  for (std::int32_t m = 0; m < shape.micro_batches; ++m)
    for (std::int32_t a = 0; a < shape.attention_workers; ++a)
      if (shape.has(a, m)) add(CommandKind::kHead, 0, m, a, -1);

  // Edges: each command names what it waits for; stored by what is waited for.
  std::vector<std::pair<std::int32_t, std::int32_t>> edges;  // (earlier, later)
  const auto edge = [&](std::int32_t from, std::int32_t to) {
    if (from >= 0) edges.emplace_back(from, to);
  };
  for (const Command& c : commands_) {
    const std::int32_t l = c.layer, m = c.micro_batch, a = c.attention, f = c.ffn;
    switch (c.kind) {
      case CommandKind::kEmbed:
        break;
      case CommandKind::kAttention:
        if (l == 0) edge(find(CommandKind::kEmbed, 0, m, a, 0), c.id);
        for (std::int32_t i = 0; l > 0 && i < shape.ffn_workers; ++i)
          edge(find(CommandKind::kReturn, l - 1, m, a, i), c.id);
        break;
      case CommandKind::kHandOver:
        edge(find(CommandKind::kAttention, l, m, a, 0), c.id);
        break;
      case CommandKind::kExperts:
        for (std::int32_t i = 0; i < shape.attention_workers; ++i) edge(find(CommandKind::kHandOver, l, m, i, f), c.id);
        break;
      case CommandKind::kReturn:
        edge(find(CommandKind::kExperts, l, m, 0, f), c.id);
        break;
      case CommandKind::kHead:
        for (std::int32_t i = 0; i < shape.ffn_workers; ++i)
          edge(find(CommandKind::kReturn, shape.layers - 1, m, a, i), c.id);
        break;
    }
  }
  std::sort(edges.begin(), edges.end());
  dependencies_.assign(commands_.size(), 0);
  successor_begin_.assign(commands_.size() + 1, 0);
  for (const auto& [from, to] : edges) {
    ++dependencies_[to];
    ++successor_begin_[from + 1];
    successors_.push_back(to);
  }
  for (std::size_t i = 0; i < commands_.size(); ++i) successor_begin_[i + 1] += successor_begin_[i];
}

void CommandGraph::add_layer(std::int32_t layer, std::int32_t m) {
  const auto each_attention = [&](auto&& action) {
    for (std::int32_t a = 0; a < shape_.attention_workers; ++a)
      if (shape_.has(a, m)) action(a);
  };
  bool occupied = false;
  each_attention([&](std::int32_t a) {
    occupied = true;
    add(CommandKind::kAttention, layer, m, a, -1);
    for (std::int32_t f = 0; f < shape_.ffn_workers; ++f) add(CommandKind::kHandOver, layer, m, a, f);
  });
  for (std::int32_t f = 0; occupied && f < shape_.ffn_workers; ++f) {
    add(CommandKind::kExperts, layer, m, -1, f);
    each_attention([&](std::int32_t a) { add(CommandKind::kReturn, layer, m, a, f); });
  }
}

std::size_t CommandGraph::index(CommandKind kind, std::int32_t layer, std::int32_t m, std::int32_t attention,
                                std::int32_t ffn) const {
  const std::int32_t a = std::max(attention, 0), f = std::max(ffn, 0);
  return ((((static_cast<std::size_t>(kind) * shape_.layers + layer) * shape_.micro_batches + m) *
               shape_.attention_workers +
           a) *
              shape_.ffn_workers +
          f);
}

void CommandGraph::add(CommandKind kind, std::int32_t layer, std::int32_t m, std::int32_t attention, std::int32_t ffn) {
  const auto id = static_cast<std::int32_t>(commands_.size());
  commands_.push_back({id, kind, layer, m, attention, ffn});
  by_place_[index(kind, layer, m, attention, ffn)] = id;
}

std::int32_t CommandGraph::find(CommandKind kind, std::int32_t layer, std::int32_t m, std::int32_t attention,
                                std::int32_t ffn) const {
  if (layer < 0 || layer >= shape_.layers || m < 0 || m >= shape_.micro_batches ||
      attention >= shape_.attention_workers || ffn >= shape_.ffn_workers)
    return -1;
  return by_place_[index(kind, layer, m, attention, ffn)];
}

std::span<const std::int32_t> CommandGraph::successors(std::int32_t id) const {
  return std::span(successors_).subspan(successor_begin_[id], successor_begin_[id + 1] - successor_begin_[id]);
}

const CommandGraph& Pipeline::graph(const StepShape& shape) {
  if (const auto known = graphs_.find(shape); known != graphs_.end()) return *known->second;
  if (graphs_.size() >= kGraphsMax) graphs_.clear();
  return *graphs_.emplace(shape, std::make_unique<CommandGraph>(shape)).first->second;
}

void Walk::reset(const CommandGraph& graph) {
  graph_ = &graph;
  const std::size_t count = graph.commands().size();
  missing_.resize(count);
  for (std::size_t i = 0; i < count; ++i) missing_[i] = graph.dependencies(static_cast<std::int32_t>(i));
  mine_.assign(count, 0);
  complete_.assign(count, 0);
  ready_.clear();
  ready_.reserve(count);
  remaining_ = 0;
}

void Walk::push_if_mine(std::int32_t id) {
  if (!mine_[id] || complete_[id]) return;
  ready_.push_back(id);
  std::push_heap(ready_.begin(), ready_.end(), std::greater<>());
}

std::optional<Command> Walk::next() {
  while (!ready_.empty()) {
    std::pop_heap(ready_.begin(), ready_.end(), std::greater<>());
    const std::int32_t id = ready_.back();
    ready_.pop_back();
    if (!complete_[id])
      return graph_->commands()[id];  // an abandoned micro-batch completes commands ahead of their turn
  }
  return std::nullopt;
}

void Walk::complete(std::int32_t id) {
  if (complete_[id]) return;
  complete_[id] = 1;
  remaining_ -= mine_[id];
  for (const std::int32_t successor : graph_->successors(id))
    if (--missing_[successor] == 0) push_if_mine(successor);
}

}  // namespace tandem
