// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Messages between processes and machines over UCX: shared memory, TCP, RDMA, whichever of them the options leave and
// both ends have. Active messages carry them, so that this side decides where bytes may go before UCX moves them: small
// ones are copied, large ones fetched by the receiver straight from the sender's buffer (rendezvous).
//
// The n-th message of a peer belongs to the n-th receive posted for it. Every message shows its number and the token
// that the receiver gave its sender (hello.h); one with another token is dropped, and a peer that breaks the rules in
// any other way is cut off. A send counts as sent when the receiver says that it is in its buffer, so a sender never
// has more than sends_max messages with a peer, and what waits there without a receive is bounded by that.
//
//   set-up     every rank makes an endpoint, hands hello_for(peer) to each peer over a connection that knows who is at
//              its other end, connects with what it got, and waits until it is ready
//   in a step  no lock and no allocation here, except the message of a refusal; a message that comes before its receive
//              is kept in memory that grows once. UCX itself takes requests from pools.
//   waiting    poll spins, then sleeps on UCX's event descriptor and on wake()
//
// An endpoint belongs to one thread (wake excepted). One that is destroyed says so to its peers; one that dies is
// noticed by UCX.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "transport/meeting_transport.h"

namespace tandem {

// Whether transports in UCX's words name shared memory, over which UCX cannot tell that a peer is gone.
constexpr bool names_shared_memory(std::string_view transports) {
  return transports.find("shm") != std::string_view::npos || transports.find("posix") != std::string_view::npos ||
         transports.find("sysv") != std::string_view::npos;
}

struct UcxConfig {
  std::int32_t sends_max = 64;     // posted to one peer and not yet reported by poll; the same on all ranks
  std::int32_t receives_max = 64;  // the same for receives from one peer
  std::size_t message_bytes_max = std::size_t{1} << 30;  // the same on all ranks
  std::optional<Nanoseconds> spin;  // unless given: 20 µs, or nothing where there are fewer cores than peers

  // UCX tells of a peer that dies without a word. Its shared memory cannot (UCX 1.13): there, only a peer that leaves
  // is noticed, and whoever watches the process has to say so of one that died (give_up).
  bool notice_dead_peers = true;

  // UCX's own choices, in its words; where empty, UCX chooses, or the variable of its environment does.
  std::string transports;            // UCX_TLS: "shm,self", "tcp", "rc", …
  std::string devices;               // UCX_NET_DEVICES: "eth0", "mlx5_0:1,mlx5_1:1", …
  std::string rails_max;             // UCX_MAX_RNDV_RAILS: how many devices carry one large message
  std::string rendezvous_threshold;  // UCX_RNDV_THRESH: bytes from which the receiver fetches
};

class UcxTransport : public MeetingTransport {
 public:
  // Throws Error{kInvalidArgument} for a config that makes no sense or an option that UCX does not know,
  // Error{kUnavailable} when no device is left.
  static std::unique_ptr<UcxTransport> make(PeerRank rank, std::int32_t peers, const UcxConfig& config = {});

  // The peer is dead: what is posted with it ends as kPeerGone.
  virtual void give_up(PeerRank peer) = 0;
  // kUnavailable, with the ranks that are missing, when they were not heard in time.
  Status wait_until_ready(Nanoseconds time);

 private:
  virtual std::string not_ready() const = 0;
};

}  // namespace tandem
