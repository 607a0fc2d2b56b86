// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A byte stream to one client, plain or under TLS, as the connection's coroutines use it. Inner to this folder: the
// only header here that knows Asio besides connection.h and tls.h.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstddef>
#include <memory>
#include <string_view>

namespace tandem {

// All calls on the connection's strand; one read and one write may be under way together. Failures throw system_error.
class Socket {
 public:
  virtual ~Socket() = default;
  virtual boost::asio::awaitable<void> handshake() = 0;
  // At least one byte; 0 when the client has ended.
  virtual boost::asio::awaitable<std::size_t> read(char* to, std::size_t bytes_max) = 0;
  virtual boost::asio::awaitable<void> write(std::string_view bytes) = 0;
  virtual boost::asio::ip::tcp::socket& lowest() = 0;
};

std::unique_ptr<Socket> make_plain_socket(boost::asio::ip::tcp::socket socket);

}  // namespace tandem
