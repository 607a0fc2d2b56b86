// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as a sealed message: refused, with nothing left of them. Then the same bytes as a message that is sealed,
// one bit of which is changed at a place that the first bytes choose: refused too, and taken unchanged.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "base/check.h"
#include "trust/frame_cipher.h"

using namespace tandem;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  FrameCipher seals(FrameCipher::Side::kSeals, SecretKey{}), opens(FrameCipher::Side::kOpens, SecretKey{});
  std::vector<std::byte> opened(size - std::min(size, kSealBytes), std::byte{1});
  TANDEM_CHECK(!opens.open(bytes, opened), "bytes that nobody has sealed are refused");
  for (const std::byte byte : opened) TANDEM_CHECK(byte == std::byte{0}, "nothing of a refused message is left");

  std::vector<std::byte> sealed(size + kSealBytes), back(size);
  TANDEM_CHECK(seals.seal(bytes, sealed).is_ok(), "a message is sealed");
  std::uint32_t place = 0;
  if (size > 0) std::memcpy(&place, data, std::min(size, sizeof place));
  std::byte& changed = sealed[place / 8 % sealed.size()];
  const std::byte bit{static_cast<unsigned char>(1u << place % 8)};
  changed ^= bit;
  TANDEM_CHECK(!opens.open(sealed, back), "a changed bit is noticed");
  changed ^= bit;
  TANDEM_CHECK(opens.open(sealed, back).is_ok(), "what the peer has sealed is taken");
  TANDEM_CHECK(std::ranges::equal(back, bytes), "and is what it was");
  TANDEM_CHECK(!opens.open(sealed, back), "once");
  return 0;
}
