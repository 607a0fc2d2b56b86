// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How a model's answers are written: whether they begin with reasoning, and how they call tools. Found by what the
// model's template and tokenizer know, or named by who runs it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "chat_format/call_syntax.h"
#include "chat_format/reasoning_parser.h"
#include "text/tokenizer.h"

namespace tandem {

struct ChatFormat {
  enum class Reasoning {
    kNone,
    kTagged,  // where <think> is, in the prompt or at the answer's beginning
    kAlways,  // from the beginning, unless the prompt has ended it
  };
  Reasoning reasoning = Reasoning::kNone;
  const CallSyntax* calls = nullptr;  // none: the model knows no tools
  // Special tokens that are marks of the format, ascending: whoever leaves special tokens out of a text shows these.
  std::vector<std::int32_t> marks = {};

  // Where an answer begins, by the end of its prompt's text.
  ReasoningParser::Start start_after(std::string_view prompt_end) const;
};

// Enough of a prompt's last tokens for start_after.
inline constexpr std::size_t kPromptEndTokens = 16;

// "auto": tokens and template say it. Parsers' names are those of vLLM: step3, qwen3, deepseek_r1 for reasoning,
// step3, hermes, qwen3, deepseek_v3, deepseek_v31 for tools, and "none". Throws Error{kInvalidArgument}.
ChatFormat find_chat_format(const Tokenizer& tokenizer, std::string_view template_source,
                            std::string_view reasoning_parser = "auto", std::string_view tool_call_parser = "auto");

// The role that the template has for what a tool answered.
std::string_view tool_role(std::string_view template_source);

}  // namespace tandem
