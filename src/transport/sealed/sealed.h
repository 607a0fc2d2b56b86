// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A transport whose messages are sealed on the way (trust/frame_cipher.h). It wraps any other: a send is encrypted into
// memory of its own, which the inner transport sends; a receive comes there, and is decrypted into the caller's buffer.
//
// What is not what the peer has sealed, a replay included, is told as kTruncated with 0 bytes, and counted: who checks
// frames refuses it as he does one that is damaged. A peer whose keys were not said is not spoken to.
//
// The memory grows until as much is under way as ever will be, at most sends_max messages and the posted receives of
// each peer; it is registered with the inner transport then. No lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "transport/transport.h"
#include "trust/frame_cipher.h"

namespace tandem {

class SealedTransport final : public Transport {
 public:
  explicit SealedTransport(std::unique_ptr<Transport> inner);

  // Of messages to the peer and from it (link_key); once for each.
  void set_keys(PeerRank peer, const SecretKey& to, const SecretKey& from);

  // A message may have kSealBytes less than the inner transport's, and no rows on a device.
  TransportCapabilities capabilities() const override;
  PeerRank rank() const override { return inner_->rank(); }
  std::int32_t peers() const override { return inner_->peers(); }
  Status register_region(std::span<std::byte> region) override;
  Status post_send(PeerRank to, std::span<const std::byte> message, OperationId operation) override;
  Status post_receive(PeerRank from, std::span<std::byte> buffer, OperationId operation) override;
  std::size_t poll(std::span<TransportEvent> events, Nanoseconds wait) override;
  void wake() override { inner_->wake(); }

  // Messages that were not what their sender had sealed, and why the last of them was not.
  std::int64_t refused() const { return refused_; }
  const std::string& last_refusal() const { return last_refusal_; }

 private:
  struct Block {  // of memory that the inner transport knows
    std::unique_ptr<std::byte[]> memory;
    std::size_t bytes = 0;
    bool taken = false;
  };
  struct Posted {                 // its index is the inner operation
    std::span<std::byte> buffer;  // of a receive
    OperationId operation = 0;
    std::size_t block = 0;
    bool is_send = false, under_way = false;
  };
  struct Ciphers {
    FrameCipher to, from;
  };

  Status check_post(const char* what, PeerRank peer, std::span<const std::byte> bytes) const;
  Result<std::size_t> take_block(std::size_t bytes, bool of_send);
  std::size_t add(Posted posted);
  Status end_unposted(std::size_t index, Status why);
  void open(TransportEvent& event, const Posted& posted, std::span<std::byte> sealed);

  std::vector<Block> blocks_;  // outlive inner_
  std::unique_ptr<Transport> inner_;
  std::vector<std::optional<Ciphers>> ciphers_;  // by peer
  std::vector<std::span<const std::byte>> regions_;
  std::vector<Posted> posted_;
  std::int64_t refused_ = 0;
  std::string last_refusal_;
};

}  // namespace tandem
