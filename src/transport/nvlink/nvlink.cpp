// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/nvlink/nvlink.h"

#include <utility>

namespace tandem {

namespace {

InprocConfig with_lanes(InprocConfig config, std::vector<std::shared_ptr<CopyLane>> lanes) {
  for (std::size_t a = 0; a < lanes.size(); ++a)
    for (std::size_t b = a + 1; b < lanes.size(); ++b) lanes[a]->reach(*lanes[b]);
  config.lanes = std::move(lanes);
  return config;
}

}  // namespace

NvlinkNetwork::NvlinkNetwork(std::vector<std::shared_ptr<CopyLane>> lanes, InprocConfig config)
    : network_(static_cast<std::int32_t>(lanes.size()), with_lanes(std::move(config), lanes)) {}

}  // namespace tandem
