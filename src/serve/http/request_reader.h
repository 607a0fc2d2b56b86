// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Bytes to an HTTP/1.1 request, in whatever pieces they come. No socket: a fuzzer feeds it as a connection does.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"
#include "serve/http/message.h"

namespace tandem {

// What a client sent is no request, and which status says so.
class HttpError : public Error {
 public:
  HttpError(int status, std::string message) : Error(ErrorCode::kInvalidData, std::move(message)), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

class RequestReader {
 public:
  struct Limits {
    std::uint64_t header_bytes_max = 16 << 10;
    std::uint64_t headers_max = 64;
    std::uint64_t body_bytes_max = 2 << 20;
  };
  enum class State { kHead, kBody, kWhole };  // what it waits for

  explicit RequestReader(const Limits& limits);
  ~RequestReader();

  // Takes bytes from the front of what has come and returns how many; fewer than all means: call again with the rest
  // and what comes after it. Stops after the head and at the end of the request. Throws HttpError.
  std::size_t feed(std::string_view bytes);
  State state() const { return state_; }
  // From the end of the head on; its body when all is here.
  HttpRequest& request() { return request_; }
  // The client waits for a word before it sends the body.
  bool expects_continue() const;

 private:
  struct Parser;
  void take_head();

  Limits limits_;
  std::unique_ptr<Parser> parser_;
  State state_ = State::kHead;
  bool looks_again_ = false;  // the parser has seen the bytes to come and found them too few
  HttpRequest request_;
};

}  // namespace tandem
