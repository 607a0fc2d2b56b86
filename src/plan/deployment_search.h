// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Choosing a deployment: every count of attention and FFN servers, of micro-batches and cut of the experts within
// limits, each with the largest batch that keeps the time per token and fits the memory. A larger batch never costs
// more per token (every stage's time per row falls with it), so that one batch is enough to look at; measured stages
// rise in steps, and the batches at which they were measured are looked at as well. Who waits for whom in steps of
// measured stages is simulated, which takes a tenth of a millisecond, and a step is never shorter than by the stages'
// rule: candidates are taken in the order of what they would cost by that rule, until that is more than the best one
// was found to cost.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "plan/decode_model.h"

namespace tandem {

struct SearchLimits {
  std::int32_t attention_servers_min = 1, attention_servers_max = 64;
  std::int32_t ffn_servers_min = 1, ffn_servers_max = 32;
  std::int32_t micro_batches_min = 2, micro_batches_max = 4;
  std::int64_t rows_min = 1, rows_max = 4096;  // of a micro-batch on one attention GPU
};

struct DeploymentGoal {
  double tpot = 0.05;            // seconds a token, at most
  double tokens_per_second = 0;  // of the whole deployment, at least; the cheapest per hour is then chosen
  SearchLimits limits;
};

struct DeploymentPlan {
  Candidate candidate;
  std::int64_t rows = 0;  // of a micro-batch on one attention GPU
  double tpot = 0, tokens_per_second = 0, usd_per_million = 0, usd_per_hour = 0;
  std::string limited_by;  // what keeps the batch from being larger

  std::int64_t sequences_per_gpu() const { return rows * candidate.micro_batches; }
};

// Why there is no plan, and the nearest goal that has one.
struct Infeasible {
  std::string reason;
  std::string nearest;
};

struct SearchResult {
  std::optional<DeploymentPlan> best;
  Infeasible infeasible;        // without a best
  std::int64_t candidates = 0;  // that were looked at
};

// The best plan: of the least USD per token, or with a load of the least USD per hour. Throws Error{kInvalidArgument}
// for goals and limits that make no sense.
SearchResult search_deployment(const DecodeModel& model, const DeploymentGoal& goal);

// The plan of one candidate: its largest batch, or of measured stages the cheapest. None when it misses the goal.
std::optional<DeploymentPlan> plan_candidate(const DecodeModel& model, const DeploymentGoal& goal, const Candidate& c);

// The plan of one candidate at a batch that somebody else chose; it may miss every goal.
DeploymentPlan plan_at(const DecodeModel& model, const Candidate& c, std::int64_t rows);

// Plans for looser and tighter times per token, none of which is both slower and dearer than another; fastest first.
// found: what search_deployment found for the goal itself.
std::vector<DeploymentPlan> pareto(const DecodeModel& model, const DeploymentGoal& goal, const SearchResult& found);

}  // namespace tandem
