// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/http/tls.h"

#include "base/error.h"
#include "base/format.h"
#include "serve/http/tls_socket.h"

namespace tandem {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

class OpenSslContext final : public TlsContext {
 public:
  OpenSslContext(const std::string& certificate, const std::string& key) : context_(asio::ssl::context::tls_server) {
    allow_current_versions(context_);
    boost::system::error_code code;
    context_.use_certificate_chain_file(certificate, code);
    if (code) fail("certificate (--tls-certificate)", certificate, code);
    context_.use_private_key_file(key, asio::ssl::context::pem, code);
    if (code) fail("key of the certificate (--tls-key)", key, code);
  }

  std::unique_ptr<Socket> make_socket(tcp::socket socket) override {
    return std::make_unique<TlsSocket>(std::move(socket), context_, TlsSocket::Stream::server, Truncation::kEnd);
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
