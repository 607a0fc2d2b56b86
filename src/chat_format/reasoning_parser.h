// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Divides an answer at <think> and </think> into reasoning and the rest. Only the first block counts, and only at the
// beginning of the answer; later marks are text. Whitespace next to a mark belongs to it.
#pragma once

#include <string>
#include <string_view>

#include "chat_format/answer_event.h"

namespace tandem {

inline constexpr std::string_view kThinkBegin = "<think>", kThinkEnd = "</think>";

class ReasoningParser {
 public:
  enum class Start {
    kContent,  // there is no reasoning: all is content
    kEither,   // the answer may begin with <think>
    kInside,   // the prompt ended with it
  };
  explicit ReasoningParser(Start start) : state_(start), skips_space_(start == Start::kInside) {}

  // Reasoning goes to events, the text after it is returned.
  std::string push(std::string_view text, AnswerEvents& events);
  std::string finish(AnswerEvents& events);
  // Nothing that is still to come is reasoning.
  bool past_reasoning() const { return state_ == Start::kContent; }

 private:
  bool find_beginning();
  bool find_end(AnswerEvents& events);
  bool skip_space();

  Start state_;
  bool skips_space_ = false;  // after a mark
  std::string held_;          // may be a part of a mark
};

}  // namespace tandem
