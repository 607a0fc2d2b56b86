// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A plan for people and for programs: what was chosen, how long each stage takes and why, what would change.
#pragma once

#include <string>
#include <vector>

#include "plan/deployment_search.h"

namespace tandem {

struct ContextAnswer {
  std::int64_t context;
  SearchResult result;
};

struct DeploymentAnswer {
  DeploymentGoal goal;
  SearchResult result;
  std::vector<DeploymentPlan> pareto;
  std::vector<ContextAnswer> contexts;  // with the FFN servers of the plan
};

// Searches, and where there is a plan asks the same for other times and contexts.
DeploymentAnswer answer_deployment(const DecodeModel& model, const DeploymentGoal& goal);

// notes: lines to be shown with the efficiencies, such as where they come from.
std::string deployment_text(const DecodeModel& model, const DeploymentAnswer& answer,
                            const std::vector<std::string>& notes = {});

// One object: plan (null without one), stages by kind of layer, memory, link, pareto, contexts, infeasible.
std::string deployment_json(const DecodeModel& model, const DeploymentAnswer& answer);

// "4A2F".
std::string layout_text(const Candidate& c);

}  // namespace tandem
