// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/stop_matcher.h"

#include <algorithm>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

StopMatcher::StopMatcher(const std::vector<std::string>& stop_strings) {
  if (stop_strings.size() > kStopStringsMax)
    throw Error(ErrorCode::kInvalidArgument,
                format("{} stop strings, limit is {}", stop_strings.size(), kStopStringsMax));
  const auto add_node = [this](std::uint32_t depth) {
    nodes_.push_back({.depth = depth});
    nodes_.back().next.fill(-1);
    return static_cast<std::int32_t>(nodes_.size() - 1);
  };
  add_node(0);
  for (const std::string& stop : stop_strings) {
    if (stop.empty() || stop.size() > kStopStringBytesMax)
      throw Error(ErrorCode::kInvalidArgument,
                  format("a stop string has {} bytes, allowed are 1 to {}", stop.size(), kStopStringBytesMax));
    std::int32_t node = 0;
    for (const char c : stop) {
      const auto byte = static_cast<std::uint8_t>(c);
      if (nodes_[node].next[byte] < 0) {
        const std::int32_t child = add_node(nodes_[node].depth + 1);
        nodes_[node].next[byte] = child;
      }
      node = nodes_[node].next[byte];
    }
    nodes_[node].stop_size = static_cast<std::uint32_t>(stop.size());
  }

  // Breadth first: fallback is the node of the longest proper suffix, whose transitions are complete already.
  std::vector<std::int32_t> order = {0}, fallback(nodes_.size(), 0);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::int32_t node = order[i];
    nodes_[node].stop_size = std::max(nodes_[node].stop_size, nodes_[fallback[node]].stop_size);
    for (std::size_t byte = 0; byte < 256; ++byte) {
      std::int32_t& next = nodes_[node].next[byte];
      const std::int32_t otherwise = node == 0 ? 0 : nodes_[fallback[node]].next[byte];
      if (next < 0) {
        next = otherwise;
      } else {
        fallback[next] = otherwise;
        order.push_back(next);
      }
    }
  }
}

StopMatcher::Output StopMatcher::push(std::string_view text) {
  Output output;
  if (stopped_) return {.text = {}, .stopped = true};
  for (const char c : text) {
    held_ += c;
    state_ = nodes_[state_].next[static_cast<std::uint8_t>(c)];
    if (const std::size_t size = nodes_[state_].stop_size; size > 0) {
      held_.erase(held_.size() - size);
      stopped_ = true;
      return {.text = std::move(held_), .stopped = true};
    }
  }
  const std::size_t keep = nodes_[state_].depth;
  output.text = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return output;
}

std::string StopMatcher::finish() {
  std::string text = stopped_ ? std::string() : std::move(held_);
  held_.clear();
  state_ = 0;
  stopped_ = false;
  return text;
}

}  // namespace tandem
