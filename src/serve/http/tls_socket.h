// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One end of a TLS connection, ours towards a client or towards a host of pictures. Inner to this folder.
#pragma once

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "serve/http/socket.h"

namespace tandem {

// Versions 1.2 and 1.3 alone.
inline void allow_current_versions(boost::asio::ssl::context& context) {
  using boost::asio::ssl::context_base;
  context.set_options(context_base::default_workarounds | context_base::no_sslv2 | context_base::no_sslv3 |
                      context_base::no_tlsv1 | context_base::no_tlsv1_1);
}

// What it means when the other end drops the connection without TLS's farewell.
enum class Truncation {
  kEnd,      // the end: lengths tell whether all has come
  kFailure,  // it could be anybody's doing, where no length says that all has come
};

class TlsSocket : public Socket {
 public:
  using Stream = boost::asio::ssl::stream<boost::asio::ip::tcp::socket>;

  // The context must outlive the socket.
  TlsSocket(boost::asio::ip::tcp::socket socket, boost::asio::ssl::context& context, Stream::handshake_type side,
            Truncation truncation)
      : stream_(std::move(socket), context), side_(side), truncation_(truncation) {}

  boost::asio::awaitable<void> handshake() override {
    co_await stream_.async_handshake(side_, boost::asio::use_awaitable);
  }

  boost::asio::awaitable<std::size_t> read(char* to, std::size_t bytes_max) override {
    namespace asio = boost::asio;
    boost::system::error_code code;
    const std::size_t bytes =
        co_await stream_.async_read_some(asio::buffer(to, bytes_max), asio::redirect_error(asio::use_awaitable, code));
    if (code == asio::error::eof) co_return 0;
    if (code == asio::ssl::error::stream_truncated && truncation_ == Truncation::kEnd) co_return 0;
    if (code) throw boost::system::system_error(code);
    co_return bytes;
  }

  boost::asio::awaitable<void> write(std::string_view bytes) override {
    co_await boost::asio::async_write(stream_, boost::asio::buffer(bytes), boost::asio::use_awaitable);
  }

  boost::asio::ip::tcp::socket& lowest() override { return stream_.next_layer(); }

 protected:
  Stream stream_;

 private:
  Stream::handshake_type side_;
  Truncation truncation_;
};

}  // namespace tandem
