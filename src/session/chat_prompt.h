// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A conversation to the tokens of its prompt. The template's own control tokens become tokens; the same spelling inside
// a message stays text, so that no message can end its turn and begin another.
//
// A template mixes both into one string. Spellings of control tokens in messages are therefore taken out before, each
// replaced by a mark that no text contains, and put back as text between the parts that are encoded with control
// tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace tandem {

inline constexpr std::size_t kMessagesMax = 4096;

// messages: an array of objects with a "role" (text) and a "content" (text, or parts as the template takes them).
// variables: an object, for the template beside the messages. tools: an array, or null. The text of both stays text as
// that of the messages does. Throws Error.
std::vector<std::int32_t> encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                      const OrderedJson& messages, const OrderedJson& variables = OrderedJson::object(),
                                      const OrderedJson& tools = nullptr);

}  // namespace tandem
