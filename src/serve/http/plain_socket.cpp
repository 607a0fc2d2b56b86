// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <boost/asio/buffer.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "serve/http/socket.h"

namespace tandem {

namespace asio = boost::asio;

namespace {

class PlainSocket final : public Socket {
 public:
  explicit PlainSocket(asio::ip::tcp::socket socket) : socket_(std::move(socket)) {}

  asio::awaitable<void> handshake() override { co_return; }

  asio::awaitable<std::size_t> read(char* to, std::size_t bytes_max) override {
    boost::system::error_code code;
    const std::size_t bytes =
        co_await socket_.async_read_some(asio::buffer(to, bytes_max), asio::redirect_error(asio::use_awaitable, code));
    if (code == asio::error::eof) co_return 0;
    if (code) throw boost::system::system_error(code);
    co_return bytes;
  }

  asio::awaitable<void> write(std::string_view bytes) override {
    co_await asio::async_write(socket_, asio::buffer(bytes), asio::use_awaitable);
  }

  asio::ip::tcp::socket& lowest() override { return socket_; }

 private:
  asio::ip::tcp::socket socket_;
};

}  // namespace

std::unique_ptr<Socket> make_plain_socket(asio::ip::tcp::socket socket) {
  return std::make_unique<PlainSocket>(std::move(socket));
}

}  // namespace tandem
