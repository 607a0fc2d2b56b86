// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A request as a JSON object: a prompt in one of three forms and any option of sampling. Strict: an unknown key is an
// error, since a misspelt option would silently be none.
//
//   {"prompt": "Once upon", "max_tokens": 64, "temperature": 0.7, "stop": ["\n"]}
//   {"messages": [{"role": "user", "content": "Hello"}], "id": 7}
//   {"prompt_ids": [1, 2, 3], "logprobs": 5}
//   {"prompt": "A date:", "regex": "[0-9]{4}-[0-9]{2}-[0-9]{2}"}
//   {"messages": [{"role": "user", "content": [{"type": "image", "path": "cat.png"}, {"type": "text", "text": "?"}]}]}
#pragma once

#include "base/json.h"
#include "session/text_session.h"
#include "text/grammar.h"

namespace tandem {

// What an answer has to be.
struct AnswerForm {
  GrammarKind kind = GrammarKind::kJsonSchema;
  std::string source;
};

// key: json_schema, regex, choice or grammar. Throws Error{kInvalidArgument}.
AnswerForm read_form(std::string_view key, const OrderedJson& value);

struct JsonRequest {
  OrderedJson id;  // whatever the client calls it; null when it does not
  TextRequest request;
  std::optional<AnswerForm> form;  // its constraint is not in request: compiling takes the model's vocabulary
  bool conversation = false;       // the answer is a turn of one, not what goes on after a text
};

// Options that line does not name are those of defaults; a "prompt" becomes the one message of a conversation when
// as_chat. Throws Error{kInvalidArgument, kInvalidData}; the caller finds the client's id with request_id.
JsonRequest read_request(const OrderedJson& object, const OpenModel& model, const TextRequest& defaults, bool as_chat);

// The "id" of a request that may be wrong in every other way; null when there is none.
OrderedJson request_id(const OrderedJson& object);

}  // namespace tandem
