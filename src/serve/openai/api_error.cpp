// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/openai/api_error.h"

namespace tandem {

namespace {

std::string_view type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "service_unavailable_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

OrderedJson text_or_null(const std::string& text) {
  return text.empty() ? OrderedJson() : OrderedJson(text);
}

}  // namespace

ApiError api_error(const Error& error) {
  if (const auto* known = dynamic_cast<const ApiError*>(&error)) return *known;
  switch (error.code()) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kInvalidData:
    case ErrorCode::kUnsupported:
      return {400, error.message()};
    case ErrorCode::kOutOfResources:
      return {429, error.message(), {}, "overloaded"};
    case ErrorCode::kUnavailable:
      return {503, "a part of the server is not available; try again"};
    case ErrorCode::kCancelled:
      return {503, "the server is stopping"};
    default:
      return {500, "internal error"};
  }
}

OrderedJson error_json(const ApiError& error) {
  return {{"error",
           {{"message", error.message()},
            {"type", type_of(error.status)},
            {"param", text_or_null(error.param)},
            {"code", text_or_null(error.reason)}}}};
}

std::unique_ptr<Reply> error_reply(const ApiError& error) {
  HttpHead head{.status = error.status};
  if (error.status == 401) head.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (error.status == 429 || error.status == 503) head.headers.emplace_back("Retry-After", "1");
  return std::make_unique<WholeReply>(std::move(head), to_line(error_json(error)) + "\n");
}

}  // namespace tandem
