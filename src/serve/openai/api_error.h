// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Errors as OpenAI's clients know them: a status and {"error": {"message", "type", "param", "code"}}.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "serve/http/message.h"

namespace tandem {

struct ApiError : Error {
  ApiError(int status, std::string message, std::string param = {}, std::string code = {})
      : Error(ErrorCode::kInvalidArgument, std::move(message)),
        status(status),
        param(std::move(param)),
        reason(std::move(code)) {}
  int status;
  std::string param;   // the field that is wrong; empty: none
  std::string reason;  // such as model_not_found; empty: none
};

// Our errors by their code. An internal one says nothing more than that: its message is not for clients.
ApiError api_error(const Error& error);
OrderedJson error_json(const ApiError& error);
std::unique_ptr<Reply> error_reply(const ApiError& error);

}  // namespace tandem
