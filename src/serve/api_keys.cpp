// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <cstring>

#include "base/check.h"
#include "base/format.h"

namespace tandem {

namespace {

std::string random_bytes(std::size_t count) {
  std::string bytes(count, '\0');
  TANDEM_CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(count)) == 1,
               "the system gives no random numbers");
  return bytes;
}

}  // namespace

Digest digest(std::string_view bytes) {
  Digest out;
  unsigned size = 0;
  TANDEM_CHECK(
      EVP_Digest(bytes.data(), bytes.size(), out.data(), &size, EVP_sha256(), nullptr) == 1 && size == out.size(),
      "SHA-256 is not available");
  return out;
}

ApiKeys::ApiKeys(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) digests_.push_back(digest(key));
}

std::optional<std::size_t> ApiKeys::find(std::string_view authorization) const {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() < kScheme.size()) return std::nullopt;
  for (std::size_t i = 0; i < kScheme.size(); ++i)
    if ((authorization[i] | 0x20) != kScheme[i]) return std::nullopt;
  authorization.remove_prefix(kScheme.size());
  const Digest shown = digest(authorization);
  std::size_t found = 0;
  for (std::size_t i = 0; i < digests_.size(); ++i)  // all of them, whichever it is
    if (CRYPTO_memcmp(digests_[i].data(), shown.data(), shown.size()) == 0) found = i + 1;
  return found == 0 ? std::nullopt : std::optional(found);
}

CacheSalts::CacheSalts() : secret_(random_bytes(32)) {}

std::uint64_t CacheSalts::salt(std::size_t client, std::string_view cache_salt) const {
  if (client == 0 && cache_salt.empty()) return 0;
  const Digest mixed = digest(format("{}{}:{}", secret_, client, cache_salt));
  std::uint64_t salt = 0;
  std::memcpy(&salt, mixed.data(), sizeof salt);
  return salt;
}

std::string random_hex(std::size_t bytes) {
  std::string text;
  for (const char c : random_bytes(bytes)) text += format("{:02x}", static_cast<unsigned char>(c));
  return text;
}

}  // namespace tandem
