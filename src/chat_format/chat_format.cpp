// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/chat_format.h"

#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "chat_format/pattern.h"

namespace tandem {

namespace {

bool knows(const Tokenizer& tokenizer, std::string_view template_source, std::string_view mark) {
  return tokenizer.find_token(mark) || template_source.find(mark) != std::string_view::npos;
}

ChatFormat::Reasoning reasoning_named(std::string_view name, const Tokenizer& tokenizer,
                                      std::string_view template_source) {
  using Reasoning = ChatFormat::Reasoning;
  if (name == "none") return Reasoning::kNone;
  if (name == "qwen3") return Reasoning::kTagged;
  if (name == "step3" || name == "deepseek_r1") return Reasoning::kAlways;
  if (name != "auto")
    throw Error(ErrorCode::kInvalidArgument,
                format("--reasoning-parser is {}, must be auto, none, step3, qwen3 or deepseek_r1", name));
  const bool thinks = knows(tokenizer, template_source, kThinkBegin) && knows(tokenizer, template_source, kThinkEnd);
  return thinks ? Reasoning::kTagged : Reasoning::kNone;
}

// Where two formats begin alike the template tells them apart: one with fences around arguments writes fences.
bool may_be_of(const CallSyntax& syntax, std::string_view template_source) {
  constexpr std::string_view kFence = "```";
  return template_source.empty() || syntax.written_call.find(kFence) == std::string_view::npos ||
         template_source.find(kFence) != std::string_view::npos;
}

const CallSyntax* calls_named(std::string_view name, const Tokenizer& tokenizer, std::string_view template_source) {
  if (name == "none") return nullptr;
  if (name != "auto") {
    if (const CallSyntax* syntax = find_call_syntax(name)) return syntax;
    std::string names;
    for (const std::string_view known : call_syntax_names()) names += format(", {}", known);
    throw Error(ErrorCode::kInvalidArgument, format("--tool-call-parser is {}, must be auto, none{}", name, names));
  }
  for (const std::string_view known : call_syntax_names())
    if (const CallSyntax* syntax = find_call_syntax(known);
        knows(tokenizer, template_source, syntax->call_begin) && may_be_of(*syntax, template_source))
      return syntax;
  return nullptr;
}

bool is_mark(const ChatFormat& format, std::string_view token) {
  if (format.reasoning != ChatFormat::Reasoning::kNone && (token == kThinkBegin || token == kThinkEnd)) return true;
  return format.calls && std::ranges::find(format.calls->marks, token) != format.calls->marks.end();
}

}  // namespace

ReasoningParser::Start ChatFormat::start_after(std::string_view prompt_end) const {
  using Start = ReasoningParser::Start;
  if (reasoning == Reasoning::kNone) return Start::kContent;
  const std::string_view trimmed = prompt_end.substr(0, prompt_end.size() - trailing_space(prompt_end));
  if (trimmed.ends_with(kThinkBegin)) return Start::kInside;
  if (trimmed.ends_with(kThinkEnd)) return Start::kContent;
  return reasoning == Reasoning::kAlways ? Start::kInside : Start::kEither;
}

ChatFormat find_chat_format(const Tokenizer& tokenizer, std::string_view template_source,
                            std::string_view reasoning_parser, std::string_view tool_call_parser) {
  ChatFormat format{reasoning_named(reasoning_parser, tokenizer, template_source),
                    calls_named(tool_call_parser, tokenizer, template_source)};
  for (std::size_t i = 0; i < tokenizer.vocab_size(); ++i) {
    const auto id = static_cast<std::int32_t>(i);
    if (tokenizer.is_special(id) && is_mark(format, tokenizer.token(id))) format.marks.push_back(id);
  }
  return format;
}

std::string_view tool_role(std::string_view template_source) {
  const auto has = [&](std::string_view word) { return template_source.find(word) != std::string_view::npos; };
  const bool tool = has("'tool'") || has("\"tool\"");
  const bool response = has("'tool_response'") || has("\"tool_response\"");
  return response && !tool ? "tool_response" : "tool";
}

}  // namespace tandem
