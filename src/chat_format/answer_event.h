// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What an answer is made of once a model's marks are read: reasoning, content, and calls of tools. Events carry text in
// the order in which it came; two in a row of one kind (and one call) are the same as one with both texts.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

struct AnswerEvent {
  enum class Kind {
    kReasoning,
    kContent,
    kCallBegin,  // text: the tool's name
    kArguments,  // text: a piece of the arguments, a JSON object; cut short when the answer is
    kCallEnd,
  };
  Kind kind = Kind::kContent;
  std::size_t call = 0;  // of calls, from 0 on
  std::string text = {};

  bool operator==(const AnswerEvent&) const = default;
};
using AnswerEvents = std::vector<AnswerEvent>;

// Appends an event; joins it to the last one where that is the same, and leaves out what has no text and needs some.
void add_event(AnswerEvents& events, AnswerEvent::Kind kind, std::string_view text, std::size_t call = 0);

}  // namespace tandem
