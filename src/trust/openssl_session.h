// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A TLS session of OpenSSL's between two buffers in memory. Inner to this folder.
#pragma once

#include <string>

#include "trust/openssl.h"
#include "trust/tls_session.h"

namespace tandem {

class OpenSslSession final : public TlsSession {
 public:
  explicit OpenSslSession(SSL_CTX* context);

  SSL* handle() const { return ssl_.get(); }
  static OpenSslSession& of(SSL* ssl) { return *static_cast<OpenSslSession*>(SSL_get_app_data(ssl)); }
  // Nothing but the shared secret will do.
  void need_shared_secret() { needs_secret_ = true; }
  // Why the handshake that is under way will fail: known better than OpenSSL can say.
  void refuse(std::string why) { refusal_ = std::move(why); }

  Status receive(std::span<const std::byte> wire, std::vector<std::byte>& plain) override;
  void send(std::span<const std::byte> plain, std::vector<std::byte>& out) override;
  void take_out(std::vector<std::byte>& out) override;
  bool established() const override { return established_; }
  bool spoken_to_plainly() const override { return plainly_; }

 private:
  void put(std::span<const std::byte> wire);
  Status shake_hands();
  Status failure();
  std::string reason();

  std::unique_ptr<SSL, Freed<SSL_free>> ssl_;
  BIO* in_ = nullptr;  // ssl_ has both
  BIO* out_ = nullptr;
  std::size_t handshake_bytes_ = 0;
  bool needs_secret_ = false, established_ = false, plainly_ = false;
  std::string refusal_;
};

}  // namespace tandem
