// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The keys that clients may show, kept as digests and compared in a time that tells nothing about them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

using Digest = std::array<std::uint8_t, 32>;  // SHA-256
Digest digest(std::string_view bytes);

class ApiKeys {
 public:
  explicit ApiKeys(const std::vector<std::string>& keys);
  bool none() const { return digests_.empty(); }
  // The place, from 1, of the key in "Bearer KEY"; none when it is no key of ours.
  std::optional<std::size_t> find(std::string_view authorization) const;

 private:
  std::vector<Digest> digests_;
};

// Which requests share cached prefixes: those with the same key and the same salt. Digests are made with a secret of
// this process, so that nobody can aim at another's number.
class CacheSalts {
 public:
  CacheSalts();
  std::uint64_t salt(std::size_t client, std::string_view cache_salt) const;

 private:
  std::string secret_;
};

// Hexadecimal letters that nobody can guess, for ids.
std::string random_hex(std::size_t bytes);

}  // namespace tandem
