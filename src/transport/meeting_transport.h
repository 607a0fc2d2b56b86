// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A transport whose endpoints do not know each other at first: every rank makes one, somebody whom both trust carries a
// few bytes from each to each, and when all have been heard it is a transport like any other.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "transport/transport.h"

namespace tandem {

class MeetingTransport : public Transport {
 public:
  // What `peer` has to get.
  virtual std::vector<std::byte> hello_for(PeerRank peer) const = 0;
  // Takes the hello of a peer. Throws Error: kInvalidData for bytes that are none, kInvalidArgument for one that is
  // meant for somebody else or has other limits, kUnavailable when no transport reaches the peer.
  virtual void connect(std::span<const std::byte> hello) = 0;
  // Moves the set-up on without waiting; true as soon as all peers that were connected have been heard.
  virtual bool ready() = 0;
};

}  // namespace tandem
