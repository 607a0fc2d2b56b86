// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What crosses between sockets and routes: a request that is whole, and a reply that is asked for its bytes. No socket,
// no thread and no JSON here.
//
// A reply is pulled: the connection asks for the next part when the one before has been written. A client that reads
// slowly is thereby asked for slowly, and nothing piles up on its way.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace tandem {

struct HttpRequest {
  std::string method, path;                                  // the path without its query
  std::vector<std::pair<std::string, std::string>> headers;  // names in small letters
  std::string body;
  std::string id;                         // ours, for log and answer
  std::size_t client = 0;                 // which API key it showed; 0: none is asked for
  bool keep_alive = true, chunks = true;  // what the client's version of HTTP allows

  // Empty when there is none.
  std::string_view header(std::string_view name) const;
};

struct HttpHead {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
};

// One thread at a time. Destroying a reply before its end means that the client is gone: work for it is cancelled.
class Reply {
 public:
  struct Part {
    std::string bytes;
    bool last = false;
  };
  virtual ~Reply() = default;
  // What has come since the last call; empty and not the last when there is nothing yet. A reply that waits calls the
  // Wake it was made with as soon as asking again is worth it.
  virtual Part next() = 0;
  // Fixed once next() has given bytes or the last part.
  virtual const HttpHead& head() const = 0;
  // Adds what the request log should tell; never what the client wrote or got.
  virtual void describe(OrderedJson& line) const { static_cast<void>(line); }
};

// Callable from any thread, and after the connection has ended.
using Wake = std::function<void()>;

// A reply that is known at once.
class WholeReply final : public Reply {
 public:
  WholeReply(HttpHead head, std::string body) : head_(std::move(head)), body_(std::move(body)) {}
  Part next() override { return {std::move(body_), true}; }
  const HttpHead& head() const override { return head_; }

 private:
  HttpHead head_;
  std::string body_;
};

// How an exchange went, for log and metrics.
struct ExchangeEnd {
  int status = 0;      // 0: the client left before there was one
  bool whole = false;  // everything was written
  std::int64_t bytes = 0;
  double seconds = 0;
};

// The routes, as connections see them. Called from several threads, for one connection by one at a time.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // The head is here and the body is not: a reply ends the exchange without reading it. Sets the request's id and
  // client.
  virtual std::unique_ptr<Reply> on_head(HttpRequest& head) = 0;
  virtual std::unique_ptr<Reply> on_request(HttpRequest& request, const Wake& wake) = 0;
  // Bytes that are no request, or none in time.
  virtual std::unique_ptr<Reply> on_error(int status, std::string_view message) = 0;
  virtual void on_connection(int change) = 0;  // +1: there is one more; -1: one less
  virtual void on_end(const HttpRequest& request, const Reply* reply, const ExchangeEnd& end) = 0;
};

std::string_view reason_phrase(int status);

}  // namespace tandem
