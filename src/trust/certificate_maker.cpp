// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "trust/certificate_maker.h"

#include <openssl/ec.h>
#include <openssl/x509v3.h>

#include <vector>

#include "base/random_bytes.h"
#include "trust/openssl.h"

namespace tandem {
namespace {

constexpr std::int64_t kDaySeconds = 86'400;
constexpr std::int64_t kClocksDiffer = 3'600;  // by so many seconds, at most

// Adds an extension in OpenSSL's words.
void extend(X509* certificate, X509* authority, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, authority, certificate, nullptr, nullptr, 0);
  const std::unique_ptr<X509_EXTENSION, Freed<X509_EXTENSION_free>> extension(
      X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str()));
  if (!extension || X509_add_ext(certificate, extension.get(), -1) != 1)
    throw Error(ErrorCode::kInvalidArgument, format("a certificate cannot say {}: {}", value, openssl_reason()));
}

// What all certificates have; not signed yet.
CertificatePointer begin_certificate(EVP_PKEY* key, const std::string& name, std::int32_t days) {
  CertificatePointer certificate(needed(X509_new(), "certificate"));
  X509* c = certificate.get();
  needed(X509_set_version(c, X509_VERSION_3), "certificate");
  // Positive, 63 bits that do not come twice.
  needed(ASN1_INTEGER_set_uint64(X509_get_serialNumber(c), random_number() >> 1), "certificate");
  needed(X509_gmtime_adj(X509_getm_notBefore(c), -kClocksDiffer), "certificate");
  needed(X509_gmtime_adj(X509_getm_notAfter(c), days * kDaySeconds), "certificate");
  const auto* text = reinterpret_cast<const unsigned char*>(name.data());
  constexpr std::size_t kNameMax = 64;  // of a common name; who it is for stands in the alternative names
  const int length = static_cast<int>(std::min(name.size(), kNameMax));
  needed(X509_NAME_add_entry_by_NID(X509_get_subject_name(c), NID_commonName, MBSTRING_UTF8, text, length, -1, 0),
         "certificate");
  needed(X509_set_pubkey(c, key), "certificate");
  return certificate;
}

std::string text_of(BIO* file) {
  char* data = nullptr;
  const long count = BIO_get_mem_data(file, &data);
  return std::string(data, static_cast<std::size_t>(count));
}

Pem pem_of(X509* certificate, EVP_PKEY* key) {
  const FilePointer certificate_file(needed(BIO_new(BIO_s_mem()), "memory")),
      key_file(needed(BIO_new(BIO_s_secmem()), "memory"));
  needed(PEM_write_bio_X509(certificate_file.get(), certificate), "certificate");
  needed(PEM_write_bio_PrivateKey(key_file.get(), key, nullptr, nullptr, 0, nullptr, nullptr), "key");
  return {text_of(certificate_file.get()), text_of(key_file.get())};
}

KeyPointer make_key() {
  return KeyPointer(needed(EVP_EC_gen("P-256"), "key"));
}

void sign(X509* certificate, EVP_PKEY* key) {
  needed(X509_sign(certificate, key, EVP_sha256()), "signature");
}

std::string alternative_name(std::string host) {
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  const std::unique_ptr<ASN1_OCTET_STRING, Freed<ASN1_OCTET_STRING_free>> address(a2i_IPADDRESS(host.c_str()));
  ERR_clear_error();
  const bool name = !host.empty() && host.find_first_not_of(
                                         "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                         "0123456789.-_") == std::string::npos;
  if (!address && !name)
    throw Error(ErrorCode::kInvalidArgument, format("{} is neither an address nor a host's name", host));
  return (address ? "IP:" : "DNS:") + host;
}

}  // namespace

Pem make_authority(const std::string& name, std::int32_t days) {
  const KeyPointer key = make_key();
  const CertificatePointer certificate = begin_certificate(key.get(), name, days);
  X509* c = certificate.get();
  needed(X509_set_issuer_name(c, X509_get_subject_name(c)), "certificate");
  extend(c, c, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  extend(c, c, NID_key_usage, "critical,keyCertSign");
  extend(c, c, NID_subject_key_identifier, "hash");
  sign(c, key.get());
  return pem_of(c, key.get());
}

Pem make_certificate(const Pem& authority, const std::string& host, std::int32_t days) {
  const FilePointer certificate_file(BIO_new_mem_buf(authority.certificate.data(), -1)),
      key_file(BIO_new_mem_buf(authority.key.data(), -1));
  const CertificatePointer issuer(PEM_read_bio_X509(certificate_file.get(), nullptr, nullptr, nullptr));
  const KeyPointer issuer_key(PEM_read_bio_PrivateKey(key_file.get(), nullptr, nullptr, nullptr));
  if (!issuer || !issuer_key || X509_check_private_key(issuer.get(), issuer_key.get()) != 1)
    throw Error(ErrorCode::kInvalidData, format("the authority cannot be used: {}", openssl_reason()));
  const std::string name = alternative_name(host);
  const KeyPointer key = make_key();
  const CertificatePointer certificate = begin_certificate(key.get(), host, days);
  X509* c = certificate.get();
  needed(X509_set_issuer_name(c, X509_get_subject_name(issuer.get())), "certificate");
  extend(c, issuer.get(), NID_basic_constraints, "critical,CA:FALSE");
  extend(c, issuer.get(), NID_key_usage, "critical,digitalSignature");
  extend(c, issuer.get(), NID_ext_key_usage, "serverAuth,clientAuth");
  extend(c, issuer.get(), NID_subject_key_identifier, "hash");
  extend(c, issuer.get(), NID_authority_key_identifier, "keyid");
  extend(c, issuer.get(), NID_subject_alt_name, name);
  sign(c, issuer_key.get());
  return pem_of(c, key.get());
}

}  // namespace tandem
