// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a process shows to the others of its deployment, and what it wants to be shown: a secret that all have, or a
// certificate of their authority. Sessions are TLS 1.3 alone, both sides are authenticated in the first handshake, and
// every session has keys of its own (an ephemeral key exchange in either case), so a secret that is lost later opens
// nothing that was recorded.
//
//   secret        external pre-shared key with (EC)DHE (RFC 8446, 2.2 and 4.2.11). Its identity is secret_number().
//                 A worker only answers and a front only asks, so nobody can be made to talk to itself (RFC 9257, 4.1).
//   certificates  both show one that the authority has signed. A front also checks that the worker's names the host
//                 that it has connected to. The authority is trusted for nothing else: no other one is looked at, and
//                 whom it signs for can be a front.
//
// Neither tickets nor early data: nothing of one session is used in another.
#pragma once

#include <memory>
#include <string>

#include "trust/secret.h"
#include "trust/tls_session.h"

namespace tandem {

enum class TlsSide { kFront, kWorker };  // who asks, who answers

// PEM files.
struct CertificateFiles {
  std::string certificate;  // with those between it and the authority
  std::string key;
  std::string authority;
};

// Any thread.
class Credentials {
 public:
  static std::shared_ptr<const Credentials> of_secret(const SecretKey& secret);
  // Throws Error: kNotFound, kPermissionDenied, kInvalidData naming the file.
  static std::shared_ptr<const Credentials> of_certificates(const CertificateFiles& files);
  virtual ~Credentials() = default;

  // host: that a front has connected to. The credentials must outlive the session.
  virtual std::unique_ptr<TlsSession> begin(TlsSide side, const std::string& host) const = 0;
};

}  // namespace tandem
