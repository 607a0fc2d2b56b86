// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One worker of a deployment as a process: loads its share of the weights, listens on its control port, and serves
// hand-overs and requests for the front that connects. It joins and leaves as the front says, and without a front it
// waits for one; it decides nothing about others.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "deploy/deployment.h"
#include "engine/worker/observer.h"
#include "roles/constraint_thread.h"
#include "roles/endpoint_maker.h"

namespace tandem {

enum class RoleKind { kAttention, kFfn };

struct RoleOptions {
  std::int32_t rank = 0;
  bool insecure = false;                             // serve also where anybody on the way may listen and speak
  int stop = -1;                                     // a file descriptor that is readable when the process has to end
  std::function<void(const std::string&)> say = {};  // a line of progress
  EndpointOptions endpoints = {};
  // Of an attention worker:
  ConstraintFactory make_constraint = {};  // of answers within a grammar; called on a thread of its own
  Observer* observer = nullptr;
};

// Returns when told to stop. Throws StuckWorker, and Error: for a deployment or rank that cannot be, for weights that
// cannot be loaded, for a port that is taken; and when the worker itself has failed.
void run_role(RoleKind kind, const Deployment& deployment, const RoleOptions& options);

}  // namespace tandem
