// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One end of a TLS connection, without the connection: bytes of the wire in, bytes for the wire out, nothing waits. One
// thread. trust/credentials.h makes them.
//
// Until it is established, what came is from anybody: it is bounded (kHandshakeBytesMax) and nothing of it is handed
// on.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/error.h"

namespace tandem {

class TlsSession {
 public:
  static constexpr std::size_t kHandshakeBytesMax = 64 << 10;  // that a peer sends

  virtual ~TlsSession() = default;

  // Takes what came from the wire and appends the peer's bytes to plain. Errors end the session, with what there is to
  // send first in out: kPermissionDenied and who has refused whom and why, kUnavailable for a peer that said good-bye.
  virtual Status receive(std::span<const std::byte> wire, std::vector<std::byte>& plain) = 0;
  // Of an established session: appends the bytes for the wire to out.
  virtual void send(std::span<const std::byte> plain, std::vector<std::byte>& out) = 0;
  // Appends what the session has to say by itself: handshake, refusals.
  virtual void take_out(std::vector<std::byte>& out) = 0;
  // The peer is who it has to be. A front may learn in its next receive that the worker does not think the same.
  virtual bool established() const = 0;
  // The peer's first bytes were no TLS.
  virtual bool spoken_to_plainly() const = 0;
};

}  // namespace tandem
