// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the simulations of a deployment share: how it stands, what each worker has loaded, what is asked, and what one
// process alone answers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "deploy/deployment.h"
#include "roles/worker_host.h"
#include "sched/request.h"

namespace tandem {

// Made once, and not changed.
struct FleetModel {
  Deployment deployment;
  std::vector<LoadedWorker> workers;  // by rank
  std::vector<Request> requests;
  std::vector<std::vector<std::int32_t>> answers;  // of one process alone

  // checkpoint: a small one. Replicas are of the FFN workers in turn. Throws Error.
  static FleetModel load(const std::string& checkpoint, std::int32_t attention, std::int32_t ffn,
                         std::int32_t replicas = 0);
};

}  // namespace tandem
