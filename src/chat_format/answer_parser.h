// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// An answer's text, in whatever parts it comes, to reasoning, content and calls. However the text is cut, the events
// are the same once those of a kind are joined. One thread.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "chat_format/call_parser.h"
#include "chat_format/reasoning_parser.h"

namespace tandem {

class AnswerParser {
 public:
  // calls null: what follows the reasoning is content as it is. schemas: of the request's tools.
  AnswerParser(ReasoningParser::Start start, const CallSyntax* calls, std::shared_ptr<const ToolSchemas> schemas);

  AnswerEvents push(std::string_view text);
  // When no more comes. Text that was held back in case it would become a mark is told now.
  AnswerEvents finish();
  std::size_t calls() const { return calls_ ? calls_->calls() : 0; }  // begun so far

 private:
  void take_content(std::string_view text, AnswerEvents& events);

  ReasoningParser reasoning_;
  std::optional<CallParser> calls_;
};

}  // namespace tandem
