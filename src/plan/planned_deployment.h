// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// From a plan to the file that the roles read, and back: whether a file still keeps what it was planned for.
#pragma once

#include <string>
#include <vector>

#include "deploy/deployment.h"
#include "plan/deployment_search.h"

namespace tandem {

struct PlacementOptions {
  std::string name;                                     // of the deployment; empty: made from model and layout
  std::string checkpoint;                               // as each host sees it
  std::vector<std::string> attention_hosts, ffn_hosts;  // one for each server; empty: attention-0, ffn-0, …
  std::string secret_file = "/etc/tandem/secret";
  std::int32_t first_port = 7000;  // the others of a host follow
};

// One attention worker for each attention GPU, one FFN worker for each FFN GPU. planned names what the planner was
// given. Throws Error{kInvalidArgument} for a wrong number of hosts.
Deployment make_deployment(const DecodeModel& model, const DeploymentPlan& plan, const DeploymentPlanned& planned,
                           const PlacementOptions& options);

struct DeploymentVerdict {
  std::vector<std::string> facts;   // what was reckoned
  std::vector<std::string> faults;  // what does not hold; empty: all does
};

// Reckons a deployment again from its [planned]: cut of the model, memory, time per token at full batch on ideal
// hardware. Throws Error for a model or hardware that is not known.
DeploymentVerdict check_planned(const Deployment& deployment);

}  // namespace tandem
