// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Reads calls of tools out of an answer's content, whatever parts it comes in. What looks like a call and is none stays
// content, to the byte; whitespace next to a call's marks belongs to them.
//
//   content ── block_begin ──▶ block ── call_begin ──▶ head ── a form ──▶ body ──▶ tail ──▶ block or content
//
// What came since the last content is kept until a head has matched: then it was a call, and only then.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "chat_format/answer_event.h"
#include "chat_format/call_syntax.h"
#include "chat_format/json_scanner.h"
#include "chat_format/tool_schemas.h"

namespace tandem {

class CallParser {
 public:
  CallParser(const CallSyntax& syntax, std::shared_ptr<const ToolSchemas> schemas)
      : syntax_(syntax), schemas_(std::move(schemas)) {}

  void push(std::string_view text, AnswerEvents& events);
  void finish(AnswerEvents& events);
  std::size_t calls() const { return calls_; }  // begun so far

 private:
  enum class State { kContent, kBlock, kHead, kJson, kWholeJson, kParameters, kValue, kTail };

  bool step(AnswerEvents& events);
  bool content(AnswerEvents& events);
  bool block(AnswerEvents& events);
  bool head(AnswerEvents& events);
  bool json(AnswerEvents& events);
  bool whole_json(AnswerEvents& events);
  bool parameters(AnswerEvents& events);
  bool value(AnswerEvents& events);
  bool tail(AnswerEvents& events);

  void keep(std::size_t bytes);
  bool give_up(AnswerEvents& events);
  void begin_call(std::string_view name, AnswerEvents& events);
  void end_call(AnswerEvents& events);
  void arguments(std::string_view text, AnswerEvents& events);
  void begin_value(std::string_view name, AnswerEvents& events);
  void text_value(std::string_view text, AnswerEvents& events);

  const CallSyntax& syntax_;
  const std::shared_ptr<const ToolSchemas> schemas_;
  State state_ = State::kContent;
  std::string rest_;          // not looked at, or not to be understood without more
  std::string kept_;          // taken as marks; content again if no call comes of it
  bool skips_space_ = false;  // after a call
  const CallForm* form_ = nullptr;
  JsonScanner scanner_;
  std::size_t scanned_ = 0;  // bytes of rest_ that scanner_ has seen
  std::size_t calls_ = 0;
  std::string tool_;
  // The parameter whose value is being read.
  unsigned types_ = 0;
  bool first_parameter_ = true, value_begun_ = false;
  std::string value_;  // as text: whitespace that may be at its end; else all of it
};

}  // namespace tandem
