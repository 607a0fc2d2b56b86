// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "trust/frame_cipher.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "trust/openssl.h"

namespace tandem {
namespace {

static_assert(std::endian::native == std::endian::little, "counters are little-endian on the wire");

constexpr std::size_t kPieceBytes = std::size_t{1} << 30;  // of one call, whose lengths are int

using Nonce = std::array<unsigned char, 12>;

Nonce nonce_of(std::uint64_t counter) {
  Nonce nonce{};
  for (std::size_t i = 0; i < 8; ++i) nonce[11 - i] = static_cast<unsigned char>(counter >> (8 * i));
  return nonce;
}

const unsigned char* raw(const std::byte* bytes) {
  return reinterpret_cast<const unsigned char*>(bytes);
}
unsigned char* raw(std::byte* bytes) {
  return reinterpret_cast<unsigned char*>(bytes);
}

}  // namespace

SecretKey link_key(const KeyShare& of_sender, const KeyShare& of_receiver, const LinkEnds& ends) {
  std::array<std::byte, 2 * sizeof(KeyShare)> both{};
  std::ranges::copy(of_sender, both.begin());
  std::ranges::copy(of_receiver, both.begin() + sizeof(KeyShare));
  const SecretKey key =
      derive_key(both, format("tandem link 1 session {:016x} from {} to {}", ends.session, ends.from, ends.to));
  wipe(both);
  return key;
}

// The expanded key of one direction.
struct FrameCipher::Key {
  CipherPointer context{needed(EVP_CIPHER_CTX_new(), "AES-GCM")};

  Key(Side side, const SecretKey& key) {
    needed(EVP_CipherInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, raw(key.data()), nullptr, side == Side::kSeals),
           "AES-GCM");
  }
  bool begin(std::uint64_t counter) const {
    const Nonce nonce = nonce_of(counter);
    int none = 0;
    return EVP_CipherInit_ex(context.get(), nullptr, nullptr, nullptr, nonce.data(), -1) == 1 &&
           EVP_CipherUpdate(context.get(), nullptr, &none, reinterpret_cast<const unsigned char*>(&counter),
                            sizeof counter) == 1;
  }
  bool pass(std::span<const std::byte> from, std::byte* to) const {
    while (!from.empty()) {
      const std::size_t count = std::min(from.size(), kPieceBytes);
      int written = 0;
      if (EVP_CipherUpdate(context.get(), raw(to), &written, raw(from.data()), static_cast<int>(count)) != 1)
        return false;
      from = from.subspan(count);
      to += count;
    }
    return true;
  }
  bool end() const {
    unsigned char nothing[16];
    int none = 0;
    return EVP_CipherFinal_ex(context.get(), nothing, &none) == 1;
  }
};

FrameCipher::FrameCipher(Side side, const SecretKey& key, std::uint64_t blocks_max)
    : key_(std::make_unique<Key>(side, key)), blocks_left_(blocks_max) {}
FrameCipher::~FrameCipher() = default;
FrameCipher::FrameCipher(FrameCipher&&) noexcept = default;
FrameCipher& FrameCipher::operator=(FrameCipher&&) noexcept = default;

Status FrameCipher::seal(std::span<const std::byte> message, std::span<std::byte> sealed) {
  TANDEM_CHECK(sealed.size() == message.size() + kSealBytes && message.size() <= kSealedMessageBytesMax,
               format("a message of {} bytes is sealed into {}", message.size(), sealed.size()));
  const std::uint64_t blocks = message.size() / 16 + 2;
  if (blocks > blocks_left_) return {ErrorCode::kUnavailable, "the link's key is used up; the next epoch has another"};
  blocks_left_ -= blocks;
  ++counter_;
  std::memcpy(sealed.data(), &counter_, sizeof counter_);
  std::byte* body = sealed.data() + kSealCounterBytes;
  const bool done =
      key_->begin(counter_) && key_->pass(message, body) && key_->end() &&
      EVP_CIPHER_CTX_ctrl(key_->context.get(), EVP_CTRL_AEAD_GET_TAG, kSealTagBytes, body + message.size()) == 1;
  TANDEM_CHECK(done, "AES-GCM does not encrypt");
  return Status::ok();
}

Status FrameCipher::open(std::span<const std::byte> sealed, std::span<std::byte> message) {
  const auto refuse = [&](std::string why) {
    std::ranges::fill(message, std::byte{0});
    return Status(ErrorCode::kInvalidData, std::move(why));
  };
  if (sealed.size() < kSealBytes || sealed.size() - kSealBytes > kSealedMessageBytesMax)
    return refuse(format("sealed frame: {} bytes, at least {} are needed", sealed.size(), kSealBytes));
  TANDEM_CHECK(message.size() + kSealBytes == sealed.size(), "a sealed frame is opened into as many bytes as it holds");
  std::uint64_t counter = 0;
  std::memcpy(&counter, sealed.data(), sizeof counter);
  if (counter <= counter_) return refuse(format("sealed frame: a replay: number {}, {} has come", counter, counter_));
  std::array<unsigned char, kSealTagBytes> tag;
  std::memcpy(tag.data(), sealed.data() + sealed.size() - kSealTagBytes, kSealTagBytes);
  const bool good =
      key_->begin(counter) && key_->pass(sealed.subspan(kSealCounterBytes, message.size()), message.data()) &&
      EVP_CIPHER_CTX_ctrl(key_->context.get(), EVP_CTRL_AEAD_SET_TAG, kSealTagBytes, tag.data()) == 1 && key_->end();
  if (!good) {
    ERR_clear_error();
    return refuse(format("sealed frame: number {} is not what the peer has sealed", counter));
  }
  counter_ = counter;
  return Status::ok();
}

}  // namespace tandem
