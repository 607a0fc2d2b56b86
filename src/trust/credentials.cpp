// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "trust/credentials.h"

#include <openssl/x509v3.h>

#include "base/read_file.h"
#include "trust/openssl.h"
#include "trust/openssl_session.h"
#include "trust/private_file.h"

namespace tandem {
namespace {

constexpr std::size_t kPemBytesMax = 1 << 20;
constexpr const char* kCipher = "TLS_AES_256_GCM_SHA384";

ContextPointer make_context() {
  ContextPointer context(needed(SSL_CTX_new(TLS_method()), "TLS"));
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_num_tickets(context.get(), 0);
  SSL_CTX_set_mode(context.get(), SSL_MODE_NO_AUTO_CHAIN);  // the authority itself is not sent: who needs it has it
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  needed(SSL_CTX_set_ciphersuites(context.get(), kCipher), "cipher");
  needed(SSL_CTX_set1_groups_list(context.get(), "X25519:P-256"), "groups");
  return context;
}

std::unique_ptr<OpenSslSession> begin_session(SSL_CTX* context, TlsSide side) {
  auto session = std::make_unique<OpenSslSession>(context);
  if (side == TlsSide::kFront)
    SSL_set_connect_state(session->handle());
  else
    SSL_set_accept_state(session->handle());
  return session;
}

class SecretCredentials final : public Credentials {
 public:
  explicit SecretCredentials(const SecretKey& secret)
      : context_(make_context()),
        key_(derive_key(secret, "tandem control connection 1")),
        number_(secret_number(secret)) {
    SSL_CTX_set_psk_use_session_callback(context_.get(), &SecretCredentials::show);
    SSL_CTX_set_psk_find_session_callback(context_.get(), &SecretCredentials::find);
    SSL_CTX_set_app_data(context_.get(), this);
  }
  ~SecretCredentials() override { wipe(key_); }

  std::unique_ptr<TlsSession> begin(TlsSide side, const std::string&) const override {
    std::unique_ptr<OpenSslSession> session = begin_session(context_.get(), side);
    session->need_shared_secret();
    // A worker has no certificate to fall back on; a front takes none, since no authority is known to it.
    SSL_set_verify(session->handle(), side == TlsSide::kFront ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
    return session;
  }

 private:
  static const SecretCredentials& of(SSL* ssl) {
    return *static_cast<const SecretCredentials*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
  }

  SessionPointer session_of_key(SSL* ssl) const {
    constexpr unsigned char kAes256GcmSha384[] = {0x13, 0x02};
    SessionPointer session(SSL_SESSION_new());
    if (!session) return nullptr;
    const auto* key = reinterpret_cast<const unsigned char*>(key_.data());
    const bool made = SSL_SESSION_set1_master_key(session.get(), key, key_.size()) == 1 &&
                      SSL_SESSION_set_cipher(session.get(), SSL_CIPHER_find(ssl, kAes256GcmSha384)) == 1 &&
                      SSL_SESSION_set_protocol_version(session.get(), TLS1_3_VERSION) == 1;
    return made ? std::move(session) : nullptr;
  }

  // A front: which key it shows.
  static int show(SSL* ssl, const EVP_MD*, const unsigned char** id, std::size_t* id_bytes, SSL_SESSION** session) {
    const SecretCredentials& mine = of(ssl);
    SessionPointer made = mine.session_of_key(ssl);
    if (!made) return 0;
    *id = reinterpret_cast<const unsigned char*>(mine.number_.data());
    *id_bytes = mine.number_.size();
    *session = made.release();
    return 1;
  }

  // A worker: the key that was named, or none, which ends the handshake for want of a certificate.
  static int find(SSL* ssl, const unsigned char* id, std::size_t id_bytes, SSL_SESSION** session) {
    const SecretCredentials& mine = of(ssl);
    *session = nullptr;
    const std::string_view named(reinterpret_cast<const char*>(id), id_bytes);
    if (named != mine.number_) {
      OpenSslSession::of(ssl).refuse(format("it has another secret: number {}, ours is {} (trust.secret_file)",
                                            quoted_number(named), mine.number_));
      return 1;
    }
    *session = mine.session_of_key(ssl).release();
    return *session ? 1 : 0;
  }

  // What came from outside, fit for a line of a log.
  static std::string quoted_number(std::string_view named) {
    const bool number = named.size() <= 64 && named.find_first_not_of("0123456789abcdef") == std::string_view::npos;
    return number && !named.empty() ? std::string(named) : format("of {} bytes that are none", named.size());
  }

  ContextPointer context_;
  SecretKey key_;
  const std::string number_;
};

[[noreturn]] void refuse_file(const std::string& path, const char* what) {
  throw Error(ErrorCode::kInvalidData, format("{} is no {} that can be used: {}", path, what, openssl_reason()));
}

FilePointer pem_of(const std::string& text) {
  return FilePointer(needed(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), "memory"));
}

std::string read_pem(const std::string& path) {
  std::string text = read_file_start(path, kPemBytesMax);
  if (text.size() > kPemBytesMax)
    throw Error(ErrorCode::kInvalidData, format("{} has more than {} bytes", path, kPemBytesMax));
  return text;
}

class CertificateCredentials final : public Credentials {
 public:
  explicit CertificateCredentials(const CertificateFiles& files) : context_(make_context()) {
    SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    use_certificate(files.certificate);
    use_key(files);
    trust_authority(files.authority);
  }

  std::unique_ptr<TlsSession> begin(TlsSide side, const std::string& host) const override {
    std::unique_ptr<OpenSslSession> session = begin_session(context_.get(), side);
    if (side == TlsSide::kFront) expect_host(session->handle(), host);
    return session;
  }

 private:
  void use_certificate(const std::string& path) {
    const std::string text = read_pem(path);
    const FilePointer file = pem_of(text);
    const CertificatePointer own(PEM_read_bio_X509(file.get(), nullptr, nullptr, nullptr));
    if (!own || SSL_CTX_use_certificate(context_.get(), own.get()) != 1) refuse_file(path, "certificate");
    while (CertificatePointer next{PEM_read_bio_X509(file.get(), nullptr, nullptr, nullptr)})
      needed(SSL_CTX_add0_chain_cert(context_.get(), next.release()), "chain");  // has it now
    ERR_clear_error();                                                           // of the end of the file
  }

  void use_key(const CertificateFiles& files) {
    std::string text = read_private_file(files.key, kPemBytesMax);
    // A key with a password would ask for it on the terminal.
    const auto no_password = [](char*, int, int, void*) { return 0; };
    const KeyPointer key(PEM_read_bio_PrivateKey(pem_of(text).get(), nullptr, no_password, nullptr));
    wipe(std::as_writable_bytes(std::span(text)));
    if (!key) refuse_file(files.key, "key");
    if (SSL_CTX_use_PrivateKey(context_.get(), key.get()) != 1)
      throw Error(ErrorCode::kInvalidData,
                  format("{} is not the key of {}: {}", files.key, files.certificate, openssl_reason()));
  }

  void trust_authority(const std::string& path) {
    const std::string text = read_pem(path);
    const FilePointer file = pem_of(text);
    std::size_t count = 0;
    while (const CertificatePointer authority{PEM_read_bio_X509(file.get(), nullptr, nullptr, nullptr)})
      count += X509_STORE_add_cert(SSL_CTX_get_cert_store(context_.get()), authority.get()) == 1;
    if (count == 0) refuse_file(path, "authority's certificate");
    ERR_clear_error();
  }

  static void expect_host(SSL* ssl, std::string host) {
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
    X509_VERIFY_PARAM* expected = SSL_get0_param(ssl);
    X509_VERIFY_PARAM_set_hostflags(expected, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (X509_VERIFY_PARAM_set1_ip_asc(expected, host.c_str()) == 1) return;
    ERR_clear_error();
    needed(X509_VERIFY_PARAM_set1_host(expected, host.data(), host.size()), "host");
  }

  ContextPointer context_;
};

}  // namespace

std::shared_ptr<const Credentials> Credentials::of_secret(const SecretKey& secret) {
  return std::make_shared<SecretCredentials>(secret);
}

std::shared_ptr<const Credentials> Credentials::of_certificates(const CertificateFiles& files) {
  return std::make_shared<CertificateCredentials>(files);
}

}  // namespace tandem
