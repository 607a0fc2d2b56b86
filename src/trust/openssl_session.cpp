// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "trust/openssl_session.h"

#include <algorithm>
#include <array>
#include <limits>

namespace tandem {
namespace {

constexpr std::size_t kReadBytes = 16 << 10;  // of a record
constexpr std::size_t kHandshakePieceBytes = 4 << 10;

// Kinds of records (RFC 8446, 5.1) that a peer can begin with.
constexpr std::byte kAlert{21}, kHandshake{22};

}  // namespace

OpenSslSession::OpenSslSession(SSL_CTX* context)
    : ssl_(needed(SSL_new(context), "TLS session")),
      in_(needed(BIO_new(BIO_s_mem()), "memory")),
      out_(needed(BIO_new(BIO_s_mem()), "memory")) {
  SSL_set_bio(ssl_.get(), in_, out_);
  SSL_set_app_data(ssl_.get(), this);
}

Status OpenSslSession::receive(std::span<const std::byte> wire, std::vector<std::byte>& plain) {
  if (handshake_bytes_ == 0 && !wire.empty() && wire.front() != kAlert && wire.front() != kHandshake) {
    plainly_ = true;
    return {ErrorCode::kPermissionDenied, "it does not speak TLS, which the trust of this deployment needs"};
  }
  ERR_clear_error();
  while (!established_ && !wire.empty()) {  // in pieces: what comes behind the handshake is no part of it
    const std::size_t count = std::min(wire.size(), kHandshakePieceBytes);
    put(wire.first(count));
    wire = wire.subspan(count);
    handshake_bytes_ += count;
    if (Status status = shake_hands(); !status) return status;
    if (!established_ && handshake_bytes_ > kHandshakeBytesMax)
      return {ErrorCode::kPermissionDenied, format("its TLS handshake has more than {} bytes", kHandshakeBytesMax)};
  }
  if (!established_) return Status::ok();
  put(wire);
  std::array<std::byte, kReadBytes> bytes;
  while (true) {
    const int count = SSL_read(ssl_.get(), bytes.data(), static_cast<int>(bytes.size()));
    if (count <= 0) break;
    plain.insert(plain.end(), bytes.begin(), bytes.begin() + count);
  }
  if (SSL_get_error(ssl_.get(), -1) == SSL_ERROR_WANT_READ) return Status::ok();
  if ((SSL_get_shutdown(ssl_.get()) & SSL_RECEIVED_SHUTDOWN) != 0 && ERR_peek_error() == 0)
    return {ErrorCode::kUnavailable, "it has closed the connection"};
  return failure();
}

void OpenSslSession::put(std::span<const std::byte> wire) {
  while (!wire.empty()) {
    const std::size_t count = std::min<std::size_t>(wire.size(), std::numeric_limits<int>::max());
    needed(BIO_write(in_, wire.data(), static_cast<int>(count)) == static_cast<int>(count), "memory");
    wire = wire.subspan(count);
  }
}

Status OpenSslSession::shake_hands() {
  const int done = SSL_do_handshake(ssl_.get());
  if (done == 1) {
    // Without the secret there is no session to go on with; with it no certificate was looked at.
    if (needs_secret_ && SSL_session_reused(ssl_.get()) != 1)
      return {ErrorCode::kPermissionDenied, "it has not shown the secret of this deployment (trust.secret_file)"};
    established_ = true;
    return Status::ok();
  }
  const int error = SSL_get_error(ssl_.get(), done);
  return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? Status::ok() : failure();
}

Status OpenSslSession::failure() {
  std::string why = reason();
  ERR_clear_error();
  return {ErrorCode::kPermissionDenied, std::move(why)};
}

std::string OpenSslSession::reason() {
  if (!refusal_.empty()) return refusal_;
  const unsigned long error = ERR_peek_error();
  if (ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) > SSL_AD_REASON_OFFSET) {
    const std::string alert = SSL_alert_desc_string_long(ERR_GET_REASON(error) - SSL_AD_REASON_OFFSET);
    return format(
        "it has refused the TLS handshake: {} ({})", alert,
        needs_secret_ ? "its trust.secret_file is another, or none" : "trust.certificate_file, authority_file");
  }
  if (ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
    return "it shows no certificate (trust.certificate_file)";
  if (needs_secret_ && !established_)
    return format("it has not shown the secret of this deployment (trust.secret_file): {}", openssl_reason());
  if (const long verdict = SSL_get_verify_result(ssl_.get()); !established_ && verdict != X509_V_OK)
    return format("its certificate is refused: {} (trust.authority_file)", X509_verify_cert_error_string(verdict));
  return format("its TLS is refused: {}", openssl_reason());
}

void OpenSslSession::send(std::span<const std::byte> plain, std::vector<std::byte>& out) {
  TANDEM_CHECK(established_, "nothing is said before the peer is known");
  while (!plain.empty()) {
    const std::size_t count = std::min<std::size_t>(plain.size(), std::numeric_limits<int>::max());
    ERR_clear_error();
    // Into memory, which takes all.
    const int written = SSL_write(ssl_.get(), plain.data(), static_cast<int>(count));
    if (written <= 0) break;  // the session is at its end, which the next receive says
    plain = plain.subspan(static_cast<std::size_t>(written));
    take_out(out);
  }
}

void OpenSslSession::take_out(std::vector<std::byte>& out) {
  if (!established_ && handshake_bytes_ == 0 && !plainly_) {
    ERR_clear_error();
    SSL_do_handshake(ssl_.get());  // a front begins
  }
  const std::size_t had = out.size(), pending = BIO_ctrl_pending(out_);
  if (pending == 0) return;
  out.resize(had + pending);
  const int count = BIO_read(out_, out.data() + had, static_cast<int>(pending));
  out.resize(had + static_cast<std::size_t>(std::max(count, 0)));
}

}  // namespace tandem
