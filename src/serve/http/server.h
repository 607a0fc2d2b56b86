// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Listens on one address and serves each client on a few threads. What is said to whom is the handler's business.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "serve/http/message.h"

namespace tandem {

// What a client may cost before any of its bytes mean something. Flags and defaults: serve/settings.cpp.
struct HttpLimits {
  std::int64_t connections_max = 2048;
  std::int64_t header_bytes_max = 16 << 10;
  std::int64_t headers_max = 64;
  std::int64_t body_bytes_max = 0;  // 0: decided by who knows what bodies bring
  std::int64_t idle_ms_max = 75'000;
  std::int64_t head_ms_max = 10'000;
  std::int64_t body_ms_max = 30'000;
  std::int64_t write_ms_max = 30'000;
};

struct HttpConfig {
  std::string host = "127.0.0.1";
  std::int64_t port = 8000;  // 0: any that is free
  std::int64_t threads = 2;
  std::string tls_certificate, tls_key;  // files; both or neither
  HttpLimits limits;
};

class HttpServer {
 public:
  // Throws Error: address in use, no such address, bad certificate. The handler must outlive the server.
  static std::unique_ptr<HttpServer> start(const HttpConfig& config, HttpHandler& handler);
  virtual ~HttpServer() = default;  // stops

  virtual std::int32_t port() const = 0;
  // Drops every connection and waits for the threads.
  virtual void stop() = 0;
};

// Whether only this machine can reach the address.
bool is_loopback(const std::string& host);

}  // namespace tandem
