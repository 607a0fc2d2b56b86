// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// OpenSSL's objects as owners, and what it says of a failure. Inner to this folder.
#pragma once

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

template <auto kFree>
struct Freed {
  template <class T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using KeyPointer = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY_free>>;
using CertificatePointer = std::unique_ptr<X509, Freed<X509_free>>;
using ContextPointer = std::unique_ptr<SSL_CTX, Freed<SSL_CTX_free>>;
using SessionPointer = std::unique_ptr<SSL_SESSION, Freed<SSL_SESSION_free>>;
using CipherPointer = std::unique_ptr<EVP_CIPHER_CTX, Freed<EVP_CIPHER_CTX_free>>;
using FilePointer = std::unique_ptr<BIO, Freed<BIO_free_all>>;

// The reason of the oldest failure of this thread that was not taken yet; all others are dropped.
inline std::string openssl_reason() {
  const unsigned long error = ERR_get_error();
  ERR_clear_error();
  const char* reason = error == 0 ? nullptr : ERR_reason_error_string(error);
  return reason ? reason : "no reason given";
}

// A call that fails for want of memory or an algorithm only.
template <class T>
T needed(T result, const char* what) {
  if (result) return result;
  throw Error(ErrorCode::kInternal, format("OpenSSL: {}: {}", what, openssl_reason()));
}

}  // namespace tandem
