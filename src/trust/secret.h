// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The secret of a deployment: 32 random bytes that all of its processes have, and nobody else. Every key that comes of
// it has a name of its own (HKDF with SHA-256, RFC 5869), so that none says anything about another.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace tandem {

using SecretKey = std::array<std::byte, 32>;

// HKDF: a key of key material that has 256 bits which cannot be guessed, for what the label says.
SecretKey derive_key(std::span<const std::byte> material, std::string_view label);

// Overwrites bytes that are not needed any more, also where a compiler would leave that out.
void wipe(std::span<std::byte> bytes);

// A file of a secret is 64 hexadecimal digits and perhaps an end of line. Nothing shorter is taken: what a person can
// remember can be guessed from one recorded handshake.
std::string make_secret_text();
// what names the source in messages. Throws Error{kInvalidData}.
SecretKey parse_secret(std::string_view text, const std::string& what);
// Throws Error as above and as read_private_file.
SecretKey read_secret(const std::string& path);

// Which secret it is, for messages and handshakes: 16 hexadecimal digits that tell nothing else about it.
std::string secret_number(const SecretKey& secret);

}  // namespace tandem
