// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/nvlink/nvlink.h"

#include <algorithm>
#include <utility>

namespace tandem {

namespace {

InprocConfig with_lanes(InprocConfig config, std::vector<std::shared_ptr<CopyLane>> lanes, PeerRank side) {
  for (std::size_t a = 0; a < lanes.size() && (side == 0 || std::cmp_less(a, side)); ++a)
    for (std::size_t b = std::max(a + 1, static_cast<std::size_t>(side)); b < lanes.size(); ++b)
      lanes[a]->reach(*lanes[b]);
  config.lanes = std::move(lanes);
  return config;
}

}  // namespace

NvlinkNetwork::NvlinkNetwork(std::vector<std::shared_ptr<CopyLane>> lanes, InprocConfig config, PeerRank side)
    : network_(static_cast<std::int32_t>(lanes.size()), with_lanes(std::move(config), lanes, side)) {}

}  // namespace tandem
