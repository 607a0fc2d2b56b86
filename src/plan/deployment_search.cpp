// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/deployment_search.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/format.h"
#include "ops/weight.h"

namespace tandem {

namespace {

constexpr std::int32_t kServersMax = 4096, kMicroBatchesHere = 16;
constexpr std::int64_t kCandidatesMax = 100'000'000;

void check_range(const char* what, std::int64_t low, std::int64_t high, std::int64_t max) {
  if (low < 1 || high < low || high > max)
    throw Error(ErrorCode::kInvalidArgument,
                format("{} from {} to {}: has to be a range between 1 and {}", what, low, high, max));
}

void check_goal(const DeploymentGoal& goal) {
  check_time_per_token(goal.tpot);
  if (!(goal.tokens_per_second >= 0 && goal.tokens_per_second <= 1e12))
    throw Error(ErrorCode::kInvalidArgument,
                format("load is {} tokens/s, has to be between 0 and 1e12", goal.tokens_per_second));
  const SearchLimits& l = goal.limits;
  check_range("attention servers", l.attention_servers_min, l.attention_servers_max, kServersMax);
  check_range("FFN servers", l.ffn_servers_min, l.ffn_servers_max, kServersMax);
  check_range("micro-batches", l.micro_batches_min, l.micro_batches_max, kMicroBatchesHere);
  check_range("rows of a micro-batch", l.rows_min, l.rows_max, 1 << 20);
  const std::int64_t all = std::int64_t{4} * (l.attention_servers_max - l.attention_servers_min + 1) *
                           (l.ffn_servers_max - l.ffn_servers_min + 1) *
                           (l.micro_batches_max - l.micro_batches_min + 1);
  if (all > kCandidatesMax)
    throw Error(ErrorCode::kInvalidArgument, format("{} candidate layouts, limit is {}", all, kCandidatesMax));
}

std::int64_t rows_that_fit(const DecodeModel& model, const DeploymentGoal& goal, const Candidate& c) {
  const double rows = std::floor(model.sequences_max() / c.micro_batches);
  return rows < static_cast<double>(goal.limits.rows_max) ? static_cast<std::int64_t>(rows) : goal.limits.rows_max;
}

// Seconds a token of a candidate at a batch: simulated, or at least.
using TimePerToken = double (DecodeModel::*)(const Candidate&, double) const;

// The largest batch within the time, from rows_min to rows_max; 0: not even rows_min.
std::int64_t largest_batch(const DecodeModel& model, TimePerToken time, double tpot, const Candidate& c,
                           std::int64_t rows_min, std::int64_t rows_max) {
  const auto keeps = [&](std::int64_t rows) { return (model.*time)(c, static_cast<double>(rows)) <= tpot; };
  if (rows_max < rows_min || !keeps(rows_min)) return 0;
  if (keeps(rows_max)) return rows_max;
  std::int64_t good = rows_min, bad = rows_max;
  while (bad - good > 1) {
    const std::int64_t middle = (good + bad) / 2;
    (keeps(middle) ? good : bad) = middle;
  }
  return good;
}

DeploymentPlan priced(const DecodeModel& model, const Candidate& c, std::int64_t rows, TimePerToken time) {
  const double tpot = (model.*time)(c, static_cast<double>(rows));
  DeploymentPlan plan{.candidate = c, .rows = rows, .tpot = tpot, .limited_by = {}};
  plan.tokens_per_second = static_cast<double>(rows) * c.micro_batches * model.attention_gpus(c) / tpot;
  plan.usd_per_hour = model.usd_per_hour(c);
  plan.usd_per_million = plan.usd_per_hour / 3600 / plan.tokens_per_second * 1e6;
  return plan;
}

// A candidate's plan with the largest batch that is in time, if it has one that fits.
std::optional<DeploymentPlan> with_largest_batch(const DecodeModel& model, const DeploymentGoal& goal,
                                                 const Candidate& c, TimePerToken time) {
  if (!model.fits_model(c) || model.ffn_weight_bytes(c) > model.usable_bytes(model.settings().ffn)) return {};
  const std::int64_t least = goal.limits.rows_min;
  std::int64_t rows = largest_batch(model, &DecodeModel::tpot_min, goal.tpot, c, least, rows_that_fit(model, goal, c));
  if (time != &DecodeModel::tpot_min && model.is_measured())  // no more than those are in time
    rows = largest_batch(model, time, goal.tpot, c, least, rows);
  if (rows < 1) return {};
  return priced(model, c, rows, time);
}

// A candidate's plan: that one, or a cheaper one at a batch that was measured, which also makes more tokens per second.
std::optional<DeploymentPlan> planned(const DecodeModel& model, const DeploymentGoal& goal, const Candidate& c,
                                      TimePerToken time) {
  std::optional<DeploymentPlan> plan = with_largest_batch(model, goal, c, time);
  if (!plan) return {};
  const std::int64_t largest = plan->rows;
  for (const double measured : model.measured_rows(c)) {
    const auto rows = static_cast<std::int64_t>(measured);
    if (rows < goal.limits.rows_min || rows >= largest) continue;
    if (priced(model, c, rows, &DecodeModel::tpot_min).usd_per_million >= plan->usd_per_million) continue;
    DeploymentPlan other = priced(model, c, rows, time);
    if (other.usd_per_million < plan->usd_per_million) plan = std::move(other);
  }
  if (plan->tokens_per_second < goal.tokens_per_second) return {};
  return plan;
}

// Of two plans that reach the goal.
bool better(const DeploymentPlan& a, const DeploymentPlan& b, bool by_hour) {
  const double x = by_hour ? a.usd_per_hour : a.usd_per_million, y = by_hour ? b.usd_per_hour : b.usd_per_million;
  if (x != y) return x < y;
  if (by_hour && a.usd_per_million != b.usd_per_million) return a.usd_per_million < b.usd_per_million;
  return a.candidate.tensor_parallel > b.candidate.tensor_parallel;  // wider evens out which experts are chosen
}

std::string limit_of(const DecodeModel& model, const DeploymentGoal& goal, const DeploymentPlan& plan) {
  const Candidate& c = plan.candidate;
  if (plan.rows == goal.limits.rows_max) return format("rows of a micro-batch, {} at most", goal.limits.rows_max);
  if (plan.rows == rows_that_fit(model, goal, c))
    return format("KV memory: {:.0f} sequences of {} tokens fit on an attention GPU", std::floor(model.sequences_max()),
                  model.settings().context);
  if (model.is_measured() && model.tpot(c, static_cast<double>(plan.rows + 1)) <= goal.tpot)
    return "price: as measured, a larger batch costs more per token";
  return format("time per token, and in it {}", name(model.bound(c, static_cast<double>(plan.rows))));
}

// No batch that fits makes it better than what is there: a price falls with the batch, so that of the largest is the
// least. Not so where stages were measured.
bool cannot_beat(const DecodeModel& model, const DeploymentGoal& goal, const Candidate& c, const DeploymentPlan& best) {
  if (goal.tokens_per_second > 0) return model.usd_per_hour(c) > best.usd_per_hour;
  const std::int64_t rows = rows_that_fit(model, goal, c);
  return rows < 1 || model.usd_per_million(c, static_cast<double>(rows)) > best.usd_per_million;
}

template <class Visit>
std::int64_t for_each_candidate(const SearchLimits& l, Visit visit) {
  std::int64_t count = 0;
  Candidate c;
  for (c.attention_servers = l.attention_servers_min; c.attention_servers <= l.attention_servers_max;
       ++c.attention_servers)
    for (c.ffn_servers = l.ffn_servers_min; c.ffn_servers <= l.ffn_servers_max; ++c.ffn_servers)
      for (c.micro_batches = l.micro_batches_min; c.micro_batches <= l.micro_batches_max; ++c.micro_batches)
        for (c.tensor_parallel = 1; c.tensor_parallel <= KSlices::kCountMax; c.tensor_parallel *= 2, ++count) visit(c);
  return count;
}

// What is wrong with a goal that no candidate reaches: the first of memory of F, memory of A, time, load.
Infeasible explain(const DecodeModel& model, const DeploymentGoal& goal) {
  const SearchLimits& l = goal.limits;
  const DecodeSettings& s = model.settings();
  double least_weights = 1e300, fastest = 1e300, most = 0;
  bool cut = false;
  Candidate fastest_one, most_one;
  DeploymentGoal without_load = goal;
  without_load.tokens_per_second = 0;
  for_each_candidate(l, [&](const Candidate& c) {
    if (!model.fits_model(c)) return;
    cut = true;
    const double weights = model.ffn_weight_bytes(c);
    least_weights = std::min(least_weights, weights);
    if (weights > model.usable_bytes(s.ffn) || rows_that_fit(model, goal, c) < l.rows_min) return;
    const auto fewest = static_cast<double>(l.rows_min);
    if (model.tpot_min(c, fewest) < fastest)
      if (const double tpot = model.tpot(c, fewest); tpot < fastest) fastest = tpot, fastest_one = c;
    const auto beats = [&](const auto& plan) { return plan && plan->tokens_per_second > most; };
    if (!beats(planned(model, without_load, c, &DecodeModel::tpot_min))) return;
    if (const auto plan = planned(model, without_load, c, &DecodeModel::tpot); beats(plan))
      most = plan->tokens_per_second, most_one = c;
  });
  if (!cut && s.ffn_ladders)
    return {format("the FFN was measured with whole experts on {} GPUs, {} to {} servers of {} are asked for",
                   join(s.ffn_ladders->ffn_gpus(), ", "), l.ffn_servers_min, l.ffn_servers_max, s.ffn.gpus_per_server),
            "as many FFN GPUs as were measured"};
  if (!cut)
    return {format("{} has {} experts: its FFN cannot be cut over {} servers of {} GPUs", model.shape().name,
                   model.shape().experts(), l.ffn_servers_min, s.ffn.gpus_per_server),
            "fewer FFN servers"};
  const double usable = model.usable_bytes(s.ffn);
  if (least_weights > usable) {
    const double servers = std::ceil(least_weights / usable * l.ffn_servers_max);
    return {format("FFN weights: {:.1f} GB on each GPU of {} servers, {} has {:.1f} GB to use", least_weights * 1e-9,
                   l.ffn_servers_max, s.ffn.name, usable * 1e-9),
            format("about {:.0f} FFN servers (--ffn-servers)", servers)};
  }
  const auto sequences = static_cast<double>(l.micro_batches_min * l.rows_min);
  if (model.sequences_max() < sequences) {
    const double room = model.usable_bytes(s.attention) - model.attention_weight_bytes();
    const double token = model.kv_bytes_per_sequence() / static_cast<double>(s.context);
    return {
        format("memory of attention: weights take {:.1f} GB and {} sequences of {} tokens {:.1f} GB, {} has {:.1f} GB "
               "to use",
               model.attention_weight_bytes() * 1e-9, sequences, s.context,
               sequences * model.kv_bytes_per_sequence() * 1e-9, s.attention.name,
               model.usable_bytes(s.attention) * 1e-9),
        room > 0 ? format("context {:.0f}", std::floor(room / token / sequences)) : "no context at all"};
  }
  const auto layout = [](const Candidate& c) { return format("{}A{}F", c.attention_servers, c.ffn_servers); };
  if (fastest > goal.tpot)
    return {
        format("time per token: {:.2f} ms is asked for, {:.2f} ms is reached with {} a micro-batch ({}); {} "
               "takes most of it",
               goal.tpot * 1e3, fastest * 1e3, l.rows_min == 1 ? std::string("one row") : format("{} rows", l.rows_min),
               layout(fastest_one), name(model.bound(fastest_one, static_cast<double>(l.rows_min)))),
        format("--tpot-ms {:.2f}", std::ceil(fastest * 1e5) / 1e2)};
  return {format("load: {:.0f} tokens/s are asked for, {:.0f} are reached ({})", goal.tokens_per_second, most,
                 layout(most_one)),
          format("{:.0f} tokens/s, or more servers", std::floor(most))};
}

}  // namespace

DeploymentPlan plan_at(const DecodeModel& model, const Candidate& c, std::int64_t rows) {
  return priced(model, c, rows, &DecodeModel::tpot);
}

std::optional<DeploymentPlan> plan_candidate(const DecodeModel& model, const DeploymentGoal& goal, const Candidate& c) {
  return planned(model, goal, c, &DecodeModel::tpot);
}

namespace {

void search_rooflines(const DecodeModel& model, const DeploymentGoal& goal, SearchResult& result) {
  result.candidates = for_each_candidate(goal.limits, [&](const Candidate& c) {
    if (result.best && cannot_beat(model, goal, c, *result.best)) return;
    std::optional<DeploymentPlan> plan = plan_candidate(model, goal, c);
    if (plan && (!result.best || better(*plan, *result.best, goal.tokens_per_second > 0)))
      result.best = std::move(plan);
  });
}

// What a candidate costs by the stages' rule is about the least that it costs simulated: only a batch between measured
// ones may be a little cheaper.
void search_measured(const DecodeModel& model, const DeploymentGoal& goal, SearchResult& result) {
  const bool by_hour = goal.tokens_per_second > 0;
  std::vector<DeploymentPlan> at_least;
  result.candidates = for_each_candidate(goal.limits, [&](const Candidate& c) {
    if (auto plan = planned(model, goal, c, &DecodeModel::tpot_min)) at_least.push_back(std::move(*plan));
  });
  std::ranges::sort(at_least, [&](const auto& a, const auto& b) { return better(a, b, by_hour); });
  for (const DeploymentPlan& least : at_least) {
    if (result.best && !better(least, *result.best, by_hour)) return;
    std::optional<DeploymentPlan> plan = plan_candidate(model, goal, least.candidate);
    if (plan && (!result.best || better(*plan, *result.best, by_hour))) result.best = std::move(plan);
  }
}

}  // namespace

SearchResult search_deployment(const DecodeModel& model, const DeploymentGoal& goal) {
  check_goal(goal);
  SearchResult result;
  model.is_measured() ? search_measured(model, goal, result) : search_rooflines(model, goal, result);
  if (result.best)
    result.best->limited_by = limit_of(model, goal, *result.best);
  else
    result.infeasible = explain(model, goal);
  return result;
}

std::vector<DeploymentPlan> pareto(const DecodeModel& model, const DeploymentGoal& goal, const SearchResult& found) {
  std::vector<DeploymentPlan> plans;
  for (const double factor : {0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0}) {
    DeploymentGoal other = goal;
    other.tpot = std::clamp(goal.tpot * factor, 1e-5, 3600.0);
    const SearchResult result = other.tpot == goal.tpot ? found : search_deployment(model, other);
    if (!result.best) continue;
    const auto price = [&](const DeploymentPlan& p) {
      return goal.tokens_per_second > 0 ? p.usd_per_hour : p.usd_per_million;
    };
    // Looser goals are never dearer; as good as equal ones add nothing.
    if (plans.empty() || price(*result.best) < price(plans.back()) * 0.999) plans.push_back(*result.best);
  }
  return plans;
}

}  // namespace tandem
