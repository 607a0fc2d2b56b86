// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One client's connection: requests are read, given to the handler, and answered, one after the other. Everything a
// client may be slow at has a deadline. While an answer is under way the connection reads on, so that a client that
// hangs up is noticed at once and its work cancelled.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "serve/http/message.h"
#include "serve/http/request_reader.h"
#include "serve/http/server.h"
#include "serve/http/socket.h"

namespace tandem {

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Strand = boost::asio::strand<boost::asio::io_context::executor_type>;
  Connection(Strand strand, std::unique_ptr<Socket> socket, HttpHandler& handler, const HttpLimits& limits);
  ~Connection();

  void start();
  // When no thread runs the connection any more: drops the reply, and with it the work behind it.
  void abandon() { reply_.reset(); }

 private:
  using Nothing = boost::asio::awaitable<void>;
  using Yes = boost::asio::awaitable<bool>;

  Nothing run();
  Yes exchange();  // false: the connection ends
  Nothing read_head(RequestReader& reader);
  Nothing read_body(RequestReader& reader);
  Nothing make_reply(RequestReader& reader);
  void feed(RequestReader& reader);
  Nothing more_bytes();
  Yes send_reply(const HttpRequest& request, ExchangeEnd& end);
  Nothing send(std::string_view bytes, ExchangeEnd& end);
  Nothing wait_for_wake();
  Nothing linger();
  Nothing watch();
  std::string head_of(const HttpRequest& request, const Reply::Part& first) const;
  void arm(std::int64_t ms, bool closes = false);
  void disarm();
  Wake make_wake();

  Strand strand_;
  std::unique_ptr<Socket> socket_;
  HttpHandler& handler_;
  const HttpLimits& limits_;
  boost::asio::steady_timer deadline_, signal_;
  std::string pending_;  // bytes that came and are not used yet
  std::unique_ptr<Reply> reply_;
  std::chrono::steady_clock::time_point begun_ = {};  // the request under way
  bool body_left_ = false;                            // the answer goes out before the request was read
  bool keep_ = false;
  bool watching_ = false, gone_ = false, woken_ = false, timed_out_ = false;
};

}  // namespace tandem
