// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The bodies of /tokenize and /detokenize and their answers: text or a conversation to token ids, and ids to text.
#pragma once

#include <string_view>

#include "base/json.h"
#include "serve/openai/request.h"

namespace tandem {

// body is the text of the request. Throws ApiError naming the field.
OrderedJson answer_tokenize(std::string_view body, const RequestScope& scope);
OrderedJson answer_detokenize(std::string_view body, const RequestScope& scope);

}  // namespace tandem
