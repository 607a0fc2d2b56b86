// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a request says about the form of its answer, in any of the ways that OpenAI and vLLM know, and the grammar of
// it.
#pragma once

#include <memory>

#include "serve/openai/tools.h"
#include "text/grammar.h"

namespace tandem {

// null: the answer is free. Compiles, which takes up to some milliseconds; never on an engine's thread. Throws ApiError
// naming the field and what is wrong with it.
std::shared_ptr<const Grammar> read_grammar(const RequestDraft& draft, const ToolUse& use);

}  // namespace tandem
