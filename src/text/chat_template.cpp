// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/chat_template.h"

#include "base/error.h"
#include "base/json.h"
#include "text/border.h"

namespace tandem {

void ChatTemplate::Free::operator()(TandemTemplate* handle) const {
  tandem_template_free(handle);
}

ChatTemplate::ChatTemplate(std::string_view source) {
  TandemTemplate* handle = nullptr;
  BorderBuffer out;
  require_ok(tandem_template_compile(border_bytes(source), source.size(), &handle, out.out()), out, "model");
  handle_.reset(handle);
}

std::string ChatTemplate::render(const Conversation& conversation) const {
  Json variables = {{"bos_token", conversation.bos_token},
                    {"eos_token", conversation.eos_token},
                    {"add_generation_prompt", conversation.add_generation_prompt}};
  const Json extra = parse_json(conversation.variables_json, "template variables");
  if (!extra.is_object()) throw Error(ErrorCode::kInvalidArgument, "template variables: not an object");
  variables.update(extra);
  const std::string variables_json = to_line(variables);
  const TandemConversation inputs = {.messages = border_bytes(conversation.messages_json),
                                     .messages_size = conversation.messages_json.size(),
                                     .tools = border_bytes(conversation.tools_json),
                                     .tools_size = conversation.tools_json.size(),
                                     .variables = border_bytes(variables_json),
                                     .variables_size = variables_json.size(),
                                     .unix_seconds = conversation.unix_seconds};
  BorderBuffer out;
  require_ok(tandem_template_render(handle_.get(), &inputs, out.out()), out, "prompt");
  return std::string(out.view());
}

}  // namespace tandem
