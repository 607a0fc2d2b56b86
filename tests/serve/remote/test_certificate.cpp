// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/serve/remote/test_certificate.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <memory>
#include <stdexcept>

namespace tandem {

namespace {

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

void need(bool done) {
  if (!done) throw std::runtime_error("no certificate could be made");
}

File open_file(const std::string& path) {
  File file(std::fopen(path.c_str(), "w"), &std::fclose);
  need(file != nullptr);
  return file;
}

void add_extension(X509* certificate, int kind, const std::string& value) {
  const std::unique_ptr<X509_EXTENSION, decltype(&X509_EXTENSION_free)> extension(
      X509V3_EXT_conf_nid(nullptr, nullptr, kind, value.c_str()), &X509_EXTENSION_free);
  need(extension && X509_add_ext(certificate, extension.get(), -1) == 1);
}

}  // namespace

void write_certificate(const std::string& host, const std::string& certificate_file, const std::string& key_file) {
  constexpr long kSeconds = 24 * 3600;
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"), &EVP_PKEY_free);
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), &X509_free);
  need(key && certificate);
  X509* x = certificate.get();
  need(X509_set_version(x, 2) == 1);
  need(ASN1_INTEGER_set(X509_get_serialNumber(x), 1) == 1);
  need(X509_gmtime_adj(X509_getm_notBefore(x), -kSeconds) && X509_gmtime_adj(X509_getm_notAfter(x), kSeconds));
  X509_NAME* name = X509_get_subject_name(x);
  need(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(host.c_str()), -1,
                                  -1, 0) == 1);
  need(X509_set_issuer_name(x, name) == 1 && X509_set_pubkey(x, key.get()) == 1);
  add_extension(x, NID_subject_alt_name, "DNS:" + host);
  add_extension(x, NID_basic_constraints, "critical,CA:TRUE");
  need(X509_sign(x, key.get(), EVP_sha256()) > 0);
  need(PEM_write_X509(open_file(certificate_file).get(), x) == 1);
  need(PEM_write_PrivateKey(open_file(key_file).get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) == 1);
}

}  // namespace tandem
