// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "trust/secret.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>

#include <charconv>

#include "base/random_bytes.h"
#include "trust/openssl.h"
#include "trust/private_file.h"

namespace tandem {
namespace {

constexpr std::size_t kSecretFileBytesMax = 1024;
constexpr std::size_t kNumberBytes = 8;

std::string hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += format("{:02x}", static_cast<unsigned>(byte));
  return text;
}

}  // namespace

SecretKey derive_key(std::span<const std::byte> material, std::string_view label) {
  const std::unique_ptr<EVP_KDF, Freed<EVP_KDF_free>> kdf(needed(EVP_KDF_fetch(nullptr, "HKDF", nullptr), "HKDF"));
  const std::unique_ptr<EVP_KDF_CTX, Freed<EVP_KDF_CTX_free>> context(needed(EVP_KDF_CTX_new(kdf.get()), "HKDF"));
  std::string digest = "SHA256", info(label);
  std::string key(reinterpret_cast<const char*>(material.data()), material.size());
  const std::array<OSSL_PARAM, 4> params = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest.data(), 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key.data(), key.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info.data(), info.size()), OSSL_PARAM_construct_end()};
  SecretKey derived{};
  const int done =
      EVP_KDF_derive(context.get(), reinterpret_cast<unsigned char*>(derived.data()), derived.size(), params.data());
  wipe(std::as_writable_bytes(std::span(key)));
  needed(done > 0, "HKDF");
  return derived;
}

void wipe(std::span<std::byte> bytes) {
  OPENSSL_cleanse(bytes.data(), bytes.size());
}

std::string make_secret_text() {
  SecretKey secret{};
  fill_random(secret);
  return hex(secret) + "\n";
}

SecretKey parse_secret(std::string_view text, const std::string& what) {
  while (text.ends_with('\n') || text.ends_with('\r')) text.remove_suffix(1);
  SecretKey secret{};
  const auto refuse = [&] {
    throw Error(ErrorCode::kInvalidData,
                format("{} is no secret: {} hexadecimal digits are expected (tandem keys secret makes them)", what,
                       2 * secret.size()));
  };
  if (text.size() != 2 * secret.size()) refuse();
  for (std::size_t i = 0; i < secret.size(); ++i) {
    unsigned value = 0;
    const char* begin = text.data() + 2 * i;
    const auto [end, failure] = std::from_chars(begin, begin + 2, value, 16);
    if (failure != std::errc() || end != begin + 2) refuse();
    secret[i] = std::byte(value);
  }
  return secret;
}

SecretKey read_secret(const std::string& path) {
  return parse_secret(read_private_file(path, kSecretFileBytesMax), path);
}

std::string secret_number(const SecretKey& secret) {
  const SecretKey number = derive_key(secret, "tandem number of the secret 1");
  return hex(std::span(number).first(kNumberBytes));
}

}  // namespace tandem
