// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/reasoning_parser.h"

#include <algorithm>
#include <utility>

#include "chat_format/pattern.h"

namespace tandem {

std::string ReasoningParser::push(std::string_view text, AnswerEvents& events) {
  held_ += text;
  if (state_ == Start::kEither && !find_beginning()) return {};
  if (state_ == Start::kInside && !find_end(events)) return {};
  if (!skip_space()) return {};
  return std::exchange(held_, {});
}

std::string ReasoningParser::finish(AnswerEvents& events) {
  std::string rest = std::exchange(held_, {});
  if (state_ != Start::kInside) return rest;
  add_event(events, AnswerEvent::Kind::kReasoning, rest);
  return {};
}

// False while more text must tell how the answer begins.
bool ReasoningParser::find_beginning() {
  const PatternMatch match = match_mark(kThinkBegin, held_);
  if (match.kind == PatternMatch::Kind::kMore) return false;
  const bool thinks = match.kind == PatternMatch::Kind::kYes;
  state_ = thinks ? Start::kInside : Start::kContent;
  skips_space_ = thinks;
  held_.erase(0, match.end);
  return true;
}

// False while the reasoning goes on.
bool ReasoningParser::find_end(AnswerEvents& events) {
  if (!skip_space()) return false;
  const std::string_view text = held_;
  const std::size_t mark = text.find(kThinkEnd);
  const bool found = mark != std::string_view::npos;
  const std::string_view before = text.substr(0, mark);
  const std::size_t hold = found ? trailing_space(before) : bytes_to_hold(before, kThinkEnd);
  add_event(events, AnswerEvent::Kind::kReasoning, before.substr(0, before.size() - hold));
  held_.erase(0, found ? mark + kThinkEnd.size() : before.size() - hold);
  if (!found) return false;
  state_ = Start::kContent;
  skips_space_ = true;
  return true;
}

// False while there is nothing but the whitespace after a mark.
bool ReasoningParser::skip_space() {
  if (skips_space_) held_.erase(held_.begin(), std::ranges::find_if_not(held_, is_space));
  if (held_.empty()) return false;
  skips_space_ = false;
  return true;
}

}  // namespace tandem
