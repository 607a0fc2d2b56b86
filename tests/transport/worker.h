// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a test of a transport needs around an endpoint: registered memory in slots, and waiting for events.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "transport/transport.h"

namespace tandem {

inline constexpr Nanoseconds kTestWait = 20 * kSecond;  // longer than any test should take, then it fails

inline bool operator==(const TransportEvent& a, const TransportEvent& b) {
  return a.kind == b.kind && a.peer == b.peer && a.operation == b.operation && a.bytes == b.bytes &&
         a.row_bytes == b.row_bytes;
}

inline std::ostream& operator<<(std::ostream& out, const TransportEvent& event) {
  constexpr std::array kNames = {"sent", "received", "truncated", "peer gone"};
  return out << kNames[static_cast<std::size_t>(event.kind)] << " peer " << event.peer << " operation "
             << event.operation << " bytes " << event.bytes << " row bytes " << event.row_bytes;
}

class TestWorker {
 public:
  static constexpr std::size_t kSlotBytes = 1024;
  static constexpr std::size_t kSlots = 256;

  explicit TestWorker(std::unique_ptr<Transport> transport)
      : memory_(kSlots * kSlotBytes), transport_(std::move(transport)) {
    EXPECT_TRUE(transport_->register_region(memory_));
  }

  Transport& transport() { return *transport_; }
  void leave() { transport_.reset(); }

  std::span<std::byte> slot(std::size_t index, std::size_t bytes = kSlotBytes) {
    return std::span(memory_).subspan(index % kSlots * kSlotBytes, bytes);
  }
  std::string text(std::size_t index, std::size_t bytes) {
    return std::string(reinterpret_cast<const char*>(slot(index).data()), bytes);
  }

  // The slot's index is the operation.
  Status send(PeerRank to, std::size_t index, std::string_view text) {
    std::memcpy(slot(index).data(), text.data(), text.size());
    return transport_->post_send(to, slot(index, text.size()), index);
  }
  Status receive(PeerRank from, std::size_t index, std::size_t bytes = kSlotBytes) {
    return transport_->post_receive(from, slot(index, bytes), index);
  }

  // Polls until there are count events, or for kTestWait; then what else is there already, of which a test expects
  // none.
  std::vector<TransportEvent> events(std::size_t count) {
    std::vector<TransportEvent> found;
    std::array<TransportEvent, 8> some;
    const RealClock clock;
    const Nanoseconds end = clock.now() + kTestWait;
    while (found.size() < count && clock.now() < end) {
      const std::size_t polled = transport_->poll(some, end - clock.now());
      found.insert(found.end(), some.begin(), some.begin() + static_cast<std::ptrdiff_t>(polled));
    }
    while (const std::size_t polled = transport_->poll(some, 0)) {
      found.insert(found.end(), some.begin(), some.begin() + static_cast<std::ptrdiff_t>(polled));
    }
    return found;
  }

 private:
  std::vector<std::byte> memory_;
  std::unique_ptr<Transport> transport_;
};

inline TransportEvent sent(PeerRank to, OperationId operation) {
  return {TransportEvent::Kind::kSent, to, operation, 0};
}
inline TransportEvent received(PeerRank from, OperationId operation, std::size_t bytes) {
  return {TransportEvent::Kind::kReceived, from, operation, bytes};
}
inline TransportEvent truncated(PeerRank from, OperationId operation, std::size_t bytes) {
  return {TransportEvent::Kind::kTruncated, from, operation, bytes};
}
inline TransportEvent peer_gone(PeerRank peer, OperationId operation) {
  return {TransportEvent::Kind::kPeerGone, peer, operation, 0};
}

}  // namespace tandem
