// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A whole deployment in one process, on a virtual clock and a network that fails: the front's membership, the workers'
// services, schedulers, caches, frames and recovery are those that run in production, and so is the model, a tiny one,
// so that a lost, doubled or altered token is seen. What happens follows from the seed alone.
//
// After every event: each answer is the beginning of what one process alone would answer, no answer ends twice or
// without a reason that is allowed, blocks of KV add up. At the end of a run all that failed is repaired, and then
// every request has to end, with its whole answer unless its client has given it up, and every cache has to be empty.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sim/fleet/fleet_model.h"
#include "sim/fleet/fleet_network.h"

namespace tandem {

// How often things were done to a deployment.
struct FleetFaults {
  std::int64_t kills = 0, silent_kills = 0, pauses = 0, cuts = 0, front_kills = 0, drains = 0;
  std::int64_t moved_requests = 0, moved_pages = 0;  // for the drains
  NetworkCounts network;

  FleetFaults& operator+=(const FleetFaults& other);
};

struct FleetRun {
  std::string failure;           // empty: none
  std::vector<std::string> log;  // what happened, with times
  FleetFaults faults;
  std::int64_t tokens = 0, answers = 0, epochs = 0, preemptions = 0, events = 0;
  Nanoseconds time = 0;  // virtual
};

FleetRun simulate_fleet(const FleetModel& model, std::uint64_t seed);

}  // namespace tandem
