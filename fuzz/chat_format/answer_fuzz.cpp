// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as an answer, in every format: however it is cut, the same events come of it, and calls are well formed.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/check.h"
#include "chat_format/answer_parser.h"

namespace {

using tandem::AnswerEvent;
using tandem::AnswerEvents;

tandem::AnswerEvents events_of(std::string_view text, std::size_t part, tandem::ReasoningParser::Start start,
                               const tandem::CallSyntax* calls) {
  static const auto schemas = std::make_shared<const tandem::ToolSchemas>(tandem::OrderedJson::parse(
      R"([{"function": {"name": "f", "parameters": {"properties": {"n": {"type": "number"}, "o": {"type": "object"}}}}}])"));
  tandem::AnswerParser parser(start, calls, schemas);
  AnswerEvents all;
  const auto take = [&](const AnswerEvents& events) {
    for (const AnswerEvent& event : events) tandem::add_event(all, event.kind, event.text, event.call);
  };
  for (std::size_t at = 0; at < text.size(); at += part) take(parser.push(text.substr(at, part)));
  take(parser.finish());
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto start = static_cast<tandem::ReasoningParser::Start>(data[0] % 3);
  for (const char* name : {"step3", "hermes", "deepseek_v3"}) {
    const tandem::CallSyntax* calls = tandem::find_call_syntax(name);
    const AnswerEvents whole = events_of(text, text.size() + 1, start, calls);
    TANDEM_CHECK(events_of(text, 1, start, calls) == whole, "one byte at a time gives other events");
    TANDEM_CHECK(events_of(text, 2 + data[1], start, calls) == whole, "other parts give other events");
    std::size_t told = 0;
    for (const AnswerEvent& event : whole) told += event.text.size();
    TANDEM_CHECK(told <= 8 * text.size() + 64, "more is told than was said");
  }
  return 0;
}
