// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The grammar (Lark, as text/grammar.h takes it) of answers that call tools: each call as the model's format writes it,
// its name one of the tools', its arguments by the tool's schema.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "chat_format/call_syntax.h"
#include "text/tokenizer.h"

namespace tandem {

struct CallGrammarOptions {
  std::string_view only = {};  // the one tool that must be called; empty: any
  bool several = true;         // calls may follow each other
  // Text may stand before and after, calls may be none; only where may_stand_in_text. Then only strict tools are held
  // to their schemas.
  bool with_text = false;
  // With text: JSON of this schema, instead of calls and not beside them; empty: any text.
  std::string_view schema = {};
};

// Whether a grammar can tell text from the beginning of calls: they begin with a token that no text spells, or stand
// by themselves behind a mark, from which on a text is a call.
bool may_stand_in_text(const CallSyntax& syntax, const Tokenizer& tokenizer);

// tools: as ToolSchemas takes them, at least one.
std::string call_grammar(const CallSyntax& syntax, const OrderedJson& tools, const Tokenizer& tokenizer,
                         const CallGrammarOptions& options = {});

}  // namespace tandem
