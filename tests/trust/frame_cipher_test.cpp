// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What of it is seen on the way is tests/transport/sealed_test.cpp.
#include "trust/frame_cipher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

namespace tandem {
namespace {

using testing::HasSubstr;
using Side = FrameCipher::Side;

std::vector<std::byte> some_bytes(std::size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = std::byte(i * 7 + 3);
  return bytes;
}

TEST(FrameCipher, EveryLengthComesBack) {
  const SecretKey key = parse_secret(make_secret_text(), "s");
  FrameCipher seals(Side::kSeals, key), opens(Side::kOpens, key);
  for (const std::size_t bytes : {0, 1, 15, 16, 17, 64, 1000, 1 << 20}) {
    const std::vector<std::byte> message = some_bytes(bytes);
    std::vector<std::byte> sealed(bytes + kSealBytes), back(bytes, std::byte{9});
    ASSERT_TRUE(seals.seal(message, sealed));
    ASSERT_TRUE(opens.open(sealed, back)) << bytes;
    EXPECT_EQ(back, message);
  }
}

// NIST's GCM test vectors have no counter of ours; this is SP 800-38D worked by another implementation (Python's
// cryptography, AESGCM): key 00…1f, nonce 0…01, additional data 01 and seven zeros, message "tandem".
TEST(FrameCipher, IsAesGcmAsTheHeaderSays) {
  const SecretKey key = parse_secret("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "k");
  const std::string text = "tandem";
  std::vector<std::byte> sealed(text.size() + kSealBytes);
  FrameCipher cipher(Side::kSeals, key);
  ASSERT_TRUE(cipher.seal(std::as_bytes(std::span(text)), sealed));
  const std::vector<unsigned> expected = {1, 0,   0,  0,   0,  0,  0,   0,   97, 183, 209, 152, 33, 153, 110,
                                          7, 236, 80, 136, 77, 48, 149, 244, 84, 250, 69,  69,  10, 162, 191};
  ASSERT_EQ(sealed.size(), expected.size());
  for (std::size_t i = 0; i < sealed.size(); ++i) EXPECT_EQ(static_cast<unsigned>(sealed[i]), expected[i]) << i;
}

TEST(FrameCipher, TheSameMessageIsNeverTheSameTwice) {
  const SecretKey key = parse_secret(make_secret_text(), "s");
  FrameCipher seals(Side::kSeals, key);
  const std::vector<std::byte> message = some_bytes(40);
  std::set<std::vector<std::byte>> seen;
  for (int i = 0; i < 100; ++i) {
    std::vector<std::byte> sealed(message.size() + kSealBytes);
    ASSERT_TRUE(seals.seal(message, sealed));
    seen.insert({sealed.begin() + kSealCounterBytes, sealed.end()});
  }
  EXPECT_EQ(seen.size(), 100u);
}

TEST(FrameCipher, NothingOfARefusedMessageIsLeft) {
  const SecretKey key = parse_secret(make_secret_text(), "s");
  FrameCipher seals(Side::kSeals, key), opens(Side::kOpens, key);
  const std::vector<std::byte> message = some_bytes(1000);
  std::vector<std::byte> sealed(message.size() + kSealBytes), back(message.size());
  ASSERT_TRUE(seals.seal(message, sealed));
  sealed.back() ^= std::byte{1};
  const Status status = opens.open(sealed, back);
  EXPECT_EQ(status.error().code(), ErrorCode::kInvalidData);
  EXPECT_EQ(status.error().message(), "sealed frame: number 1 is not what the peer has sealed");
  EXPECT_TRUE(std::ranges::all_of(back, [](std::byte b) { return b == std::byte{0}; }));
  sealed.back() ^= std::byte{1};
  EXPECT_TRUE(opens.open(sealed, back));
}

TEST(FrameCipher, AKeyThatIsUsedUpSealsNoMore) {
  FrameCipher seals(Side::kSeals, SecretKey{}, 10);
  const std::vector<std::byte> message = some_bytes(64);  // 4 blocks, the counter and the tag
  std::vector<std::byte> sealed(message.size() + kSealBytes);
  EXPECT_TRUE(seals.seal(message, sealed));
  const Status status = seals.seal(message, sealed);
  EXPECT_EQ(status.error().code(), ErrorCode::kUnavailable);
  EXPECT_THAT(status.error().message(), HasSubstr("used up"));
}

TEST(FrameCipher, KeysAreOfOnePairDirectionAndEpoch) {
  const KeyShare a = parse_secret(make_secret_text(), "a"), b = parse_secret(make_secret_text(), "b");
  const std::set<SecretKey> keys = {
      link_key(a, b, {.from = 0, .to = 1, .session = 5}), link_key(b, a, {.from = 0, .to = 1, .session = 5}),
      link_key(a, b, {.from = 1, .to = 0, .session = 5}), link_key(a, b, {.from = 0, .to = 2, .session = 5}),
      link_key(a, b, {.from = 0, .to = 1, .session = 6}), link_key(a, a, {.from = 0, .to = 1, .session = 5})};
  EXPECT_EQ(keys.size(), 6u);
  EXPECT_TRUE(keys.contains(link_key(a, b, {.from = 0, .to = 1, .session = 5})));
}

}  // namespace
}  // namespace tandem
