// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How models write calls of tools, one row of a table for each format. Patterns are those of pattern.h.
//
// A call stands in a block (block_begin … block_end) where the format has blocks, else by itself. After call_begin the
// first form whose head matches says what follows: arguments of some notation and a tail.
#pragma once

#include <span>
#include <string_view>

namespace tandem {

enum class CallBody {
  kJson,        // arguments as one JSON object
  kWholeJson,   // one JSON object with "name" and "arguments", in any order
  kParameters,  // <steptml:parameter name="KEY">VALUE</steptml:parameter> …
};

struct CallForm {
  std::string_view head;
  CallBody body;
  std::string_view tail;
};

struct CallSyntax {
  std::string_view name;         // of --tool-call-parser
  std::string_view block_begin;  // empty: no blocks
  std::string_view block_end;
  std::string_view call_begin;
  std::span<const CallForm> forms;
  // How calls are written when they must come: before all, each one (@ its name, ^ its arguments), between two, after
  // all.
  std::string_view written_begin, written_call, written_between, written_end;
  std::span<const std::string_view> marks;  // texts that may be tokens of their own
};

inline constexpr std::string_view kParameterBegin = "~<steptml:parameter name=\"$\">";
inline constexpr std::string_view kParameterEnd = "</steptml:parameter>";

// Every syntax; null for an unknown name. Names are those of vLLM; several may mean the same.
const CallSyntax* find_call_syntax(std::string_view name);
std::span<const std::string_view> call_syntax_names();

}  // namespace tandem
