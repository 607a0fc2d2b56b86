// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One request on a connection of its own, without waiting: whoever owns it polls its descriptor and calls advance().
#pragma once

#include <sys/socket.h>

#include <string>
#include <vector>

#include "traffic/answer_reader.h"
#include "traffic/server_address.h"

namespace tandem {

// Where to connect, looked up once for all calls.
struct Endpoints {
  ServerAddress address;
  std::vector<std::pair<sockaddr_storage, socklen_t>> found;  // not empty
};
// Throws Error when the host has no address.
Endpoints look_up(const ServerAddress& address);

class Caller {
 public:
  // Begins to connect. Throws Error.
  Caller(const Endpoints& to, std::string request);
  ~Caller();
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;

  int descriptor() const { return fd_; }
  short events() const;  // to poll for
  // Sends or receives as far as it goes without waiting. True when the answer is whole. Throws Error when the
  // connection failed, or what came is no answer.
  bool advance();
  AnswerReader& reader() { return reader_; }

 private:
  bool send_rest();

  int fd_ = -1;
  bool connecting_ = true;
  std::string request_;
  std::size_t sent_ = 0;
  AnswerReader reader_;
};

// The bytes of a request. key empty: none is shown; body empty: a GET.
std::string request_text(const ServerAddress& address, const std::string& path, const std::string& key,
                         const std::string& body);
// Waits for the answer's body. Throws Error, also for a status other than 200.
std::string call_and_wait(const Endpoints& to, const std::string& request, int timeout_ms);

}  // namespace tandem
