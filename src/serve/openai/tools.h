// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a chat request says about tools: which there are, whether they may or must be called, and which calls earlier
// messages made. Read strictly: a template shows all of it to the model.
#pragma once

#include <memory>
#include <string>

#include "serve/openai/request.h"

namespace tandem {

struct RequestDraft;

struct ToolUse {
  OrderedJson tools = nullptr;  // as the client gave them; null: none, or none to be called
  bool must_call = false;
  std::string only;  // the one that must be called; empty: any
  bool may_call() const { return !tools.is_null(); }
  OrderedJson for_template() const;  // without what is for the server
};

// Throws ApiError naming the field.
ToolUse read_tools(const RequestDraft& draft);

// The "tool_calls" of an assistant's message, in the form that templates take: arguments are objects, not text. field
// names it in errors.
OrderedJson read_tool_calls(const OrderedJson& calls, const std::string& field, const RequestLimits& limits);

}  // namespace tandem
