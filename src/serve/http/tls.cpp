// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/http/tls.h"

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

class TlsSocket final : public Socket {
 public:
  TlsSocket(tcp::socket socket, asio::ssl::context& context) : stream_(std::move(socket), context) {}

  asio::awaitable<void> handshake() override {
    co_await stream_.async_handshake(asio::ssl::stream_base::server, asio::use_awaitable);
  }

  // A client that drops the connection without TLS's farewell has ended too: lengths tell whether a request is whole.
  asio::awaitable<std::size_t> read(char* to, std::size_t bytes_max) override {
    boost::system::error_code code;
    const std::size_t bytes =
        co_await stream_.async_read_some(asio::buffer(to, bytes_max), asio::redirect_error(asio::use_awaitable, code));
    if (code == asio::error::eof || code == asio::ssl::error::stream_truncated) co_return 0;
    if (code) throw boost::system::system_error(code);
    co_return bytes;
  }

  asio::awaitable<void> write(std::string_view bytes) override {
    co_await asio::async_write(stream_, asio::buffer(bytes), asio::use_awaitable);
  }

  tcp::socket& lowest() override { return stream_.next_layer(); }

 private:
  asio::ssl::stream<tcp::socket> stream_;
};

class OpenSslContext final : public TlsContext {
 public:
  OpenSslContext(const std::string& certificate, const std::string& key) : context_(asio::ssl::context::tls_server) {
    context_.set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                         asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1);
    boost::system::error_code code;
    context_.use_certificate_chain_file(certificate, code);
    if (code) fail("certificate (--tls-certificate)", certificate, code);
    context_.use_private_key_file(key, asio::ssl::context::pem, code);
    if (code) fail("key of the certificate (--tls-key)", key, code);
  }

  std::unique_ptr<Socket> make_socket(tcp::socket socket) override {
    return std::make_unique<TlsSocket>(std::move(socket), context_);
  }

 private:
  [[noreturn]] static void fail(const char* what, const std::string& file, const boost::system::error_code& code) {
    throw Error(ErrorCode::kInvalidData, format("cannot use {} as {}: {}", file, what, code.message()));
  }

  asio::ssl::context context_;
};

}  // namespace

std::unique_ptr<TlsContext> TlsContext::load(const std::string& certificate, const std::string& key) {
  return std::make_unique<OpenSslContext>(certificate, key);
}

}  // namespace tandem
