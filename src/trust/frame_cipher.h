// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Messages between two workers, sealed: AES-256-GCM (NIST SP 800-38D), so that nobody on the way reads or changes one,
// and a counter, so that nobody says one again.
//
//   on the wire   u64 counter, the message encrypted, 16 bytes of tag (over both)
//   nonce         32 bits of zero, then the counter, big-endian. It begins at 1 and goes up by one with each message,
//                 so no nonce comes twice under a key.
//   keys          one for each direction of a pair and each epoch (link_key). Both workers put in 32 random bytes that
//                 are new in each epoch, so no key comes twice either, whatever one of them does, also after a restart
//                 that begins with the same epoch.
//   replays       a counter that is not above the last one taken is refused. The transports keep the order of messages,
//                 so what is above it is new.
//   limits        a key seals kBlocksMax blocks of 16 bytes (4 PiB; an adversary's advantage is then below 2^-32),
//                 after that the link is at its end, and the next epoch has new keys.
//
// One thread. Nothing here allocates but the message of a refusal.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/error.h"
#include "trust/secret.h"

namespace tandem {

// What one of the two workers of a pair puts in; from a random source that cannot be guessed.
using KeyShare = SecretKey;

// Of messages from rank `from` to rank `to`. Both sides get the same.
struct LinkEnds {
  std::int32_t from = 0;
  std::int32_t to = 0;
  std::uint64_t session = 0;  // of the epoch
};
SecretKey link_key(const KeyShare& of_sender, const KeyShare& of_receiver, const LinkEnds& ends);

inline constexpr std::size_t kSealCounterBytes = 8, kSealTagBytes = 16;
inline constexpr std::size_t kSealBytes = kSealCounterBytes + kSealTagBytes;  // that a sealed message is longer
inline constexpr std::uint64_t kBlocksMax = std::uint64_t{1} << 48;
// Of one message: GCM has a counter of 32 bits for blocks.
inline constexpr std::uint64_t kSealedMessageBytesMax = (std::uint64_t{1} << 36) - 32;

class FrameCipher {
 public:
  enum class Side { kSeals, kOpens };

  // blocks_max: for tests.
  FrameCipher(Side side, const SecretKey& key, std::uint64_t blocks_max = kBlocksMax);
  ~FrameCipher();
  FrameCipher(FrameCipher&&) noexcept;
  FrameCipher& operator=(FrameCipher&&) noexcept;

  // sealed has room for the message and kSealBytes more; they do not overlap. kUnavailable: the key is used up.
  Status seal(std::span<const std::byte> message, std::span<std::byte> sealed);
  // message has kSealBytes less than sealed. kInvalidData: too short, a replay, or not what the peer has sealed; then
  // message is zeros.
  Status open(std::span<const std::byte> sealed, std::span<std::byte> message);

 private:
  struct Key;
  std::unique_ptr<Key> key_;
  std::uint64_t counter_ = 0;  // the last one used, or taken
  std::uint64_t blocks_left_ = 0;
};

}  // namespace tandem
