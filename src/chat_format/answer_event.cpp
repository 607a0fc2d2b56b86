// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/answer_event.h"

namespace tandem {

void add_event(AnswerEvents& events, AnswerEvent::Kind kind, std::string_view text, std::size_t call) {
  const bool joins = kind != AnswerEvent::Kind::kCallBegin && kind != AnswerEvent::Kind::kCallEnd;
  if (joins && text.empty()) return;
  if (joins && !events.empty() && events.back().kind == kind && events.back().call == call)
    events.back().text += text;
  else
    events.push_back({kind, call, std::string(text)});
}

}  // namespace tandem
