// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The transport between workers of one process whose operators work in the memory of GPUs, of one or of several. What
// is for the host, headers, choices of experts, control words, goes as in inproc. Rows go from device memory to device
// memory by the copy engines, over NVLink where GPUs have it; CUDA takes them through the host where they have no way
// to each other.
//
// What orders them are points in the workers' streams (tensor/copy_lane.h). A copy is given when both ends are posted,
// by whichever of the two comes second, behind what makes the rows and behind what still reads their place. Events do
// not wait for it: each end's stream follows the copy from its event on. A point is of work that has been given, so a
// peer that is late or lost holds up no stream; an endpoint that goes away waits for copies that are under way, and so
// its memory may go after it.
//
// Rows of one process pass no checksum of ours: the link has its own, and frames keep theirs over all that the host
// reads.
#pragma once

#include <memory>
#include <vector>

#include "tensor/copy_lane.h"
#include "transport/inproc/inproc.h"

namespace tandem {

class NvlinkNetwork {
 public:
  // lanes[rank] is of the stream that rank's operators run on; the last endpoint takes them along. config.lanes is left
  // empty. side: rows go only between the ranks below it and the others, and ways are opened for them alone; 0: between
  // all.
  explicit NvlinkNetwork(std::vector<std::shared_ptr<CopyLane>> lanes, InprocConfig config = {}, PeerRank side = 0);

  // As InprocNetwork::endpoint, and destroyed before the stream of its lane.
  std::unique_ptr<Transport> endpoint(PeerRank rank) { return network_.endpoint(rank); }

 private:
  InprocNetwork network_;
};

}  // namespace tandem
