// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A request as a JSON object: a prompt in one of three forms and any option of sampling. Strict: an unknown key is an
// error, since a misspelt option would silently be none.
//
//   {"prompt": "Once upon", "max_tokens": 64, "temperature": 0.7, "stop": ["\n"]}
//   {"messages": [{"role": "user", "content": "Hello"}], "id": 7}
//   {"prompt_ids": [1, 2, 3], "logprobs": 5}
//   {"messages": [{"role": "user", "content": [{"type": "image", "path": "cat.png"}, {"type": "text", "text": "?"}]}]}
#pragma once

#include "base/json.h"
#include "session/text_session.h"

namespace tandem {

struct JsonRequest {
  OrderedJson id;  // whatever the client calls it; null when it does not
  TextRequest request;
};

// Options that line does not name are those of defaults; a "prompt" becomes the one message of a conversation when
// as_chat. Throws Error{kInvalidArgument, kInvalidData}; the caller finds the client's id with request_id.
JsonRequest read_request(const OrderedJson& object, const OpenModel& model, const TextRequest& defaults, bool as_chat);

// The "id" of a request that may be wrong in every other way; null when there is none.
OrderedJson request_id(const OrderedJson& object);

}  // namespace tandem
