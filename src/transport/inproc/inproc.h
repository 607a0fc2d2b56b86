// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The transport between workers that are threads of one process. A send is one memcpy from the sender's buffer into the
// buffer its peer posted, done by whichever of the two comes second; nothing is buffered in between.
//
// It is not a queue of messages: a send whose peer has posted no receive stays with the sender, and there can be
// sends_max of those.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "tensor/copy_lane.h"
#include "transport/transport.h"

namespace tandem {

struct InprocConfig {
  std::int32_t sends_max = 64;     // posted to one peer and not yet reported by poll
  std::int32_t receives_max = 64;  // the same for receives from one peer
  std::size_t message_bytes_max = std::size_t{1} << 30;
  // How long a waiting poll spins before it sleeps. Unless given: 20 µs, which is more than most hand-overs take, or
  // nothing on a machine with fewer cores than peers, where spinning keeps the peer from running.
  std::optional<Nanoseconds> spin;
  // By rank: how rows get from each peer's device to another's (transport/nvlink); none: there are no rows.
  std::vector<std::shared_ptr<CopyLane>> lanes = {};
};

// The peers and what is under way between them. The endpoints keep that alive; the network object may go before them.
//
//   - endpoint(rank) hands out each rank once. An endpoint, its region and its buffers belong to one thread.
//   - An endpoint that is destroyed is gone for its peers, and so is one that nobody has taken when the network object
//   is
//     destroyed. What was delivered stays delivered; sends still pending are dropped; posts to a gone peer are refused
//     with kUnavailable.
//   - A buffer outside of every registered region is refused, as a network card would.
//   - post and poll allocate nothing, except the message of a refusal, and points where there are rows.
class InprocNetwork {
 public:
  // Throws Error{kInvalidArgument} for a config that makes no sense.
  explicit InprocNetwork(std::int32_t peers, const InprocConfig& config = {});
  ~InprocNetwork();
  InprocNetwork(const InprocNetwork&) = delete;
  InprocNetwork& operator=(const InprocNetwork&) = delete;

  std::unique_ptr<Transport> endpoint(PeerRank rank);

 private:
  std::shared_ptr<class InprocFabric> fabric_;
  std::vector<bool> taken_;
};

}  // namespace tandem
