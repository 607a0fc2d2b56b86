// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Answers as models write them, rightly and wrongly, and what a test does with any of them.
#pragma once

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "base/rng.h"
#include "chat_format/answer_parser.h"

namespace tandem {

inline void PrintTo(const AnswerEvent& event, std::ostream* out) {
  constexpr const char* kNames[] = {"reasoning", "content", "call", "arguments", "end"};
  *out << kNames[static_cast<int>(event.kind)] << event.call << "(" << event.text << ")";
}

inline OrderedJson weather_tools() {
  return OrderedJson::parse(R"([{"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "$defs": {"count": {"type": "integer"}},
    "properties": {"city": {"type": "string"}, "days": {"$ref": "#/$defs/count"}, "exact": {"type": "boolean"},
                   "limits": {"type": "array"}, "unit": {"enum": ["C", "F"]},
                   "note": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}}}])");
}

struct AnswerCase {
  const char* calls;  // of --tool-call-parser; null: none
  ReasoningParser::Start start;
  std::string text;
};

inline AnswerParser parser_of(const AnswerCase& answer) {
  static const auto schemas = std::make_shared<const ToolSchemas>(weather_tools());
  return {answer.start, answer.calls ? find_call_syntax(answer.calls) : nullptr, schemas};
}

// The events of a text given in parts of the sizes, the last one being the rest; those of a kind joined.
inline AnswerEvents parsed(const AnswerCase& answer, const std::vector<std::size_t>& sizes = {}) {
  AnswerParser parser = parser_of(answer);
  AnswerEvents all;
  const auto take = [&](const AnswerEvents& events) {
    for (const AnswerEvent& event : events) add_event(all, event.kind, event.text, event.call);
  };
  std::string_view rest = answer.text;
  for (const std::size_t size : sizes) {
    take(parser.push(rest.substr(0, size)));
    rest.remove_prefix(std::min(size, rest.size()));
  }
  take(parser.push(rest));
  take(parser.finish());
  return all;
}

inline std::string joined(const AnswerEvents& events, AnswerEvent::Kind kind, std::size_t call = 0) {
  std::string text;
  for (const AnswerEvent& event : events)
    if (event.kind == kind && event.call == call) text += event.text;
  return text;
}

}  // namespace tandem
