// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/answer_parser.h"

#include <utility>

namespace tandem {

AnswerParser::AnswerParser(ReasoningParser::Start start, const CallSyntax* calls,
                           std::shared_ptr<const ToolSchemas> schemas)
    : reasoning_(start) {
  if (calls) calls_.emplace(*calls, std::move(schemas));
}

void AnswerParser::take_content(std::string_view text, AnswerEvents& events) {
  if (calls_)
    calls_->push(text, events);
  else
    add_event(events, AnswerEvent::Kind::kContent, text);
}

AnswerEvents AnswerParser::push(std::string_view text) {
  AnswerEvents events;
  const std::string content = reasoning_.push(text, events);
  take_content(content, events);
  return events;
}

AnswerEvents AnswerParser::finish() {
  AnswerEvents events;
  const std::string content = reasoning_.finish(events);
  take_content(content, events);
  if (calls_) calls_->finish(events);
  return events;
}

}  // namespace tandem
