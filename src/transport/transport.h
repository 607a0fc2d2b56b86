// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Moving bytes between workers. A Transport is one worker's endpoint; it knows its peers by rank and speaks in
// messages: register a region, post a send, post a receive, poll, report capabilities. Whether peers are threads,
// processes or machines is the implementation's business.
//
// Rules (tests/transport/conformance.h holds every implementation to them):
//   - a message goes into the oldest receive posted for its sender that has not been filled; messages between two peers
//     stay in order; nothing is ever delivered into a buffer that was not posted
//   - a message longer than the receive is reported as kTruncated with the bytes that were cut off missing, not as
//   kReceived
//   - a buffer belongs to the transport from post until its event; post and poll are called by the endpoint's one
//   thread
//   - sends in flight to one peer are at most Capabilities::sends_max; one more is refused with kOutOfResources
//   - a peer that is gone makes its posted operations end as kPeerGone, each exactly once; what is posted to it later
//   is
//     refused with kUnavailable or ends the same way
//
// Where capabilities().device_rows says so, a message may have rows in the memory of a device behind it, and a receive
// a place for them (tests/transport/device_rows.h). They go from device to device while the message goes as ever:
//   - rows are what the work given to the sender's device before post_send_rows has made; work given after the event
//     may overwrite them
//   - work given to the receiver's device after the event sees them; that given before post_receive_rows may still use
//     the place
//   - nobody waits for a device, events come when the copy has been given to it; rows that are longer than their place
//     are cut off, and the message is kTruncated
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/clock.h"
#include "base/error.h"

namespace tandem {

using PeerRank = std::int32_t;
using OperationId = std::uint64_t;  // chosen by the caller; comes back in the event

struct TransportEvent {
  enum class Kind { kSent, kReceived, kTruncated, kPeerGone };
  Kind kind = Kind::kSent;
  PeerRank peer = 0;
  OperationId operation = 0;
  std::size_t bytes = 0;      // received
  std::size_t row_bytes = 0;  // the same, of rows on a device
};

struct TransportCapabilities {
  bool zero_copy = false;  // no copy between the two posted buffers
  std::size_t message_bytes_max = 0;
  std::int32_t sends_max = 0;  // in flight to one peer
  bool device_rows = false;    // post_send_rows and post_receive_rows are there
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual TransportCapabilities capabilities() const = 0;
  virtual PeerRank rank() const = 0;
  virtual std::int32_t peers() const = 0;  // ranks are 0 … peers-1, this one included

  // Makes memory usable by post_send and post_receive; it must outlive the transport.
  virtual Status register_region(std::span<std::byte> region) = 0;
  virtual Status post_send(PeerRank to, std::span<const std::byte> message, OperationId operation) = 0;
  virtual Status post_receive(PeerRank from, std::span<std::byte> buffer, OperationId operation) = 0;

  // As above, with rows in device memory, which is not registered; it stays where it is until the transport has gone.
  virtual Status post_send_rows(PeerRank to, std::span<const std::byte> message, std::span<const std::byte> rows,
                                OperationId operation);
  virtual Status post_receive_rows(PeerRank from, std::span<std::byte> buffer, std::span<std::byte> rows,
                                   OperationId operation);

  // Fills events with what happened and returns how many; at once when wait is 0, else after the first event, a wake(),
  // or wait nanoseconds. Spins for a little, then sleeps.
  virtual std::size_t poll(std::span<TransportEvent> events, Nanoseconds wait) = 0;
  // Ends a poll of this endpoint early. Callable from any thread.
  virtual void wake() = 0;
};

}  // namespace tandem
