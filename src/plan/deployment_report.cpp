// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/deployment_report.h"

#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "base/json.h"

namespace tandem {

namespace {

constexpr std::int64_t kContextMax = std::int64_t{1} << 30;

double per_gpu(const DecodeModel& model, const DeploymentPlan& p) {
  return p.tokens_per_second / (model.attention_gpus(p.candidate) + model.ffn_gpus(p.candidate));
}

const char* kind_of(const LayerLoad& kind) {
  return kind.experts > 0 ? "routed" : "dense";
}

// Of what rooflines price; measured stages need none.
std::string efficiency_text(const DecodeModel& model) {
  const DecodeSettings& s = model.settings();
  const Efficiency& e = s.efficiency;
  std::string out = "efficiency ";
  if (!s.attention_ladders) out += format("attention {:.2f}, projections {:.2f}, ", e.attention, e.projection);
  if (!s.ffn_ladders) out += format("FFN {:.2f}, ", e.ffn);
  out += format("network {:.2f}", e.network);
  if (!model.is_measured() && e == Efficiency{}) out += " (ideal: nothing real reaches it)";
  return out + "\n";
}

std::string plan_text(const DecodeModel& model, const DeploymentPlan& p) {
  const Candidate& c = p.candidate;
  const DecodeSettings& s = model.settings();
  std::string out = format("plan       {}: attention on {} servers of {} {}, FFN on {} of {} {}\n", layout_text(c),
                           c.attention_servers, s.attention.gpus_per_server, s.attention.name, c.ffn_servers,
                           s.ffn.gpus_per_server, s.ffn.name);
  out += format(
      "batch      {} micro-batches of {} rows on each attention GPU, {} rows at once on the FFN, {} sequences\n",
      c.micro_batches, p.rows, p.rows * model.attention_gpus(c), p.sequences_per_gpu() * model.attention_gpus(c));
  out += format("experts    {} groups of whole experts, their width in {} parts\n", model.expert_parallel(c),
                c.tensor_parallel);
  out += format("speed      {:.2f} ms a token, {:.0f} tokens/s, {:.0f} tokens/s/GPU\n", p.tpot * 1e3,
                p.tokens_per_second, per_gpu(model, p));
  out += format("price      {:.4f} USD per 1M tokens, {:.2f} USD an hour\n", p.usd_per_million, p.usd_per_hour);
  if (!p.limited_by.empty()) out += format("limit      {}\n", p.limited_by);
  return out;
}

std::string stages_text(const DecodeModel& model, const DeploymentPlan& p) {
  const Candidate& c = p.candidate;
  std::string out =
      format("{:<10} {:>5} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10}  {}\n", "us a layer", "count", "A", "A to F", "F",
             "F to A", "round trip", format("{} turns", c.micro_batches), "no bubble when round trip <= turns");
  for (const LayerLoad& kind : model.kinds()) {
    const StageTimes t = model.stages(c, kind, static_cast<double>(p.rows));
    out += format("{:<10} {:>5} {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f} {:>10.1f} {:>10.1f}  {}\n", kind_of(kind),
                  kind.count, t.attention * 1e6, t.to_ffn * 1e6, t.ffn * 1e6, t.to_attention * 1e6, t.round() * 1e6,
                  c.micro_batches * t.slowest() * 1e6,
                  t.bubbles(c.micro_batches) ? format("bubble of {:.1f} us", t.bubble(c.micro_batches) * 1e6)
                                             : std::string("holds"));
  }
  if (model.is_measured()) {
    const StageTimes t = model.stages(c, model.kinds().back(), static_cast<double>(p.rows));
    out += format("alone      A {:.1f} us, F {:.1f} us: one micro-batch with nobody beside it, {}\n",
                  t.attention_alone * 1e6, t.ffn_alone * 1e6, kind_of(model.kinds().back()));
    const double least = model.tpot_min(c, static_cast<double>(p.rows));
    out +=
        format("waiting    {:.2f} ms of a step, more than by the stages' rule (simulated)\n", (p.tpot - least) * 1e3);
  }
  out += format("head       {:.1f} us a step\n", model.head_seconds(c, static_cast<double>(p.rows)) * 1e6);
  return out;
}

std::string memory_text(const DecodeModel& model, const DeploymentPlan& p) {
  const DecodeSettings& s = model.settings();
  const double kv = model.kv_bytes_per_sequence() * static_cast<double>(p.sequences_per_gpu());
  return format(
      "memory     attention GPU {:.1f} GB of weights and {:.1f} GB of KV of {:.1f} GB to use; FFN GPU {:.1f} GB of "
      "{:.1f} "
      "GB\nlink       {:.1f} Gb/s of an accelerator's {:.0f}, the busier way\n",
      model.attention_weight_bytes() * 1e-9, kv * 1e-9, model.usable_bytes(s.attention) * 1e-9,
      model.ffn_weight_bytes(p.candidate) * 1e-9, model.usable_bytes(s.ffn) * 1e-9,
      model.link_bits_per_second(p.candidate, static_cast<double>(p.rows)) * 1e-9,
      8e-9 * std::min(s.attention.network_bandwidth, s.ffn.network_bandwidth));
}

std::string row_text(const DecodeModel& model, const std::string& first, const DeploymentPlan& p) {
  return format("{:<10} {:>8} {:>6} {:>6} {:>9.2f} {:>12.0f} {:>13.0f} {:>10.4f} {:>10.2f}\n", first,
                layout_text(p.candidate), p.candidate.micro_batches, p.rows, p.tpot * 1e3, p.tokens_per_second,
                per_gpu(model, p), p.usd_per_million, p.usd_per_hour);
}

std::string row_head(const char* first) {
  return format("{:<10} {:>8} {:>6} {:>6} {:>9} {:>12} {:>13} {:>10} {:>10}\n", first, "layout", "m", "rows",
                "ms/token", "tokens/s", "tokens/s/GPU", "USD/1M", "USD/h");
}

OrderedJson plan_json(const DecodeModel& model, const DeploymentPlan& p) {
  const Candidate& c = p.candidate;
  return {{"layout", layout_text(c)},
          {"attention_servers", c.attention_servers},
          {"ffn_servers", c.ffn_servers},
          {"attention_gpus", model.attention_gpus(c)},
          {"ffn_gpus", model.ffn_gpus(c)},
          {"micro_batches", c.micro_batches},
          {"rows", p.rows},
          {"expert_groups", model.expert_parallel(c)},
          {"width_parts", c.tensor_parallel},
          {"tpot_ms", p.tpot * 1e3},
          {"tpot_least_ms", model.tpot_min(c, static_cast<double>(p.rows)) * 1e3},
          {"tokens_per_second", p.tokens_per_second},
          {"tokens_per_second_per_gpu", per_gpu(model, p)},
          {"usd_per_million_tokens", p.usd_per_million},
          {"usd_per_hour", p.usd_per_hour},
          {"limited_by", p.limited_by}};
}

OrderedJson stages_json(const DecodeModel& model, const DeploymentPlan& p) {
  OrderedJson stages = OrderedJson::array();
  for (const LayerLoad& kind : model.kinds()) {
    const StageTimes t = model.stages(p.candidate, kind, static_cast<double>(p.rows));
    stages.push_back(OrderedJson{{"kind", kind_of(kind)},
                                 {"layers", kind.count},
                                 {"attention_us", t.attention * 1e6},
                                 {"to_ffn_us", t.to_ffn * 1e6},
                                 {"ffn_us", t.ffn * 1e6},
                                 {"to_attention_us", t.to_attention * 1e6},
                                 {"attention_alone_us", t.attention_alone * 1e6},
                                 {"ffn_alone_us", t.ffn_alone * 1e6},
                                 {"period_us", t.period(p.candidate.micro_batches) * 1e6},
                                 {"bubble", t.bubbles(p.candidate.micro_batches)}});
  }
  return stages;
}

}  // namespace

std::string layout_text(const Candidate& c) {
  return format("{}A{}F", c.attention_servers, c.ffn_servers);
}

DeploymentAnswer answer_deployment(const DecodeModel& model, const DeploymentGoal& goal) {
  DeploymentAnswer answer{.goal = goal, .result = search_deployment(model, goal), .pareto = {}, .contexts = {}};
  if (!answer.result.best) return answer;
  answer.pareto = pareto(model, goal, answer.result);
  DeploymentGoal same_ffn = goal;
  const Candidate& c = answer.result.best->candidate;
  same_ffn.limits.ffn_servers_min = same_ffn.limits.ffn_servers_max = c.ffn_servers;
  for (const double factor : {0.25, 0.5, 1.0, 2.0, 4.0}) {
    DecodeSettings settings = model.settings();
    settings.context = std::clamp<std::int64_t>(
        static_cast<std::int64_t>(static_cast<double>(settings.context) * factor), 1, kContextMax);
    answer.contexts.push_back({settings.context, search_deployment(DecodeModel(model.shape(), settings), same_ffn)});
  }
  return answer;
}

std::string deployment_text(const DecodeModel& model, const DeploymentAnswer& answer,
                            const std::vector<std::string>& notes) {
  const DecodeSettings& s = model.settings();
  std::string out = format("model      {}, context {}, weights {}, KV {}\n", model.shape().name, s.context,
                           name(s.precision.weights), name(s.precision.kv));
  out += format("goal       {:.2f} ms a token at most{}\n", answer.goal.tpot * 1e3,
                answer.goal.tokens_per_second > 0
                    ? format(", {:.0f} tokens/s at least, least USD an hour", answer.goal.tokens_per_second)
                    : std::string(", least USD per token"));
  out += efficiency_text(model);
  for (const std::string& note : notes) out += format("           {}\n", note);
  out += format("looked at  {} candidate layouts\n", answer.result.candidates);
  if (!answer.result.best) {
    return out +
           format("no plan    {}\nnearest    {}\n", answer.result.infeasible.reason, answer.result.infeasible.nearest);
  }
  const DeploymentPlan& best = *answer.result.best;
  out += plan_text(model, best) + "\n" + stages_text(model, best) + memory_text(model, best);
  out += format("\n{}", row_head("time"));
  for (const DeploymentPlan& p : answer.pareto) out += row_text(model, "", p);
  out += format("\n{}", row_head("context"));
  for (const ContextAnswer& a : answer.contexts) {
    const std::string context = format("{}", a.context);
    if (a.result.best)
      out += row_text(model, context, *a.result.best);
    else
      out += format("{:<10} no plan: {}\n", context, a.result.infeasible.reason);
  }
  return out;
}

std::string deployment_json(const DecodeModel& model, const DeploymentAnswer& answer) {
  const DecodeSettings& s = model.settings();
  OrderedJson out{{"model", model.shape().name},
                  {"context", s.context},
                  {"attention_hardware", s.attention.name},
                  {"ffn_hardware", s.ffn.name},
                  {"tpot_ms_max", answer.goal.tpot * 1e3},
                  {"tokens_per_second_min", answer.goal.tokens_per_second},
                  {"efficiency", OrderedJson{{"attention", s.efficiency.attention},
                                             {"projection", s.efficiency.projection},
                                             {"ffn", s.efficiency.ffn},
                                             {"network", s.efficiency.network}}},
                  {"candidates", answer.result.candidates},
                  {"plan", nullptr}};
  if (answer.result.best) {
    const DeploymentPlan& best = *answer.result.best;
    out["plan"] = plan_json(model, best);
    out["stages"] = stages_json(model, best);
    out["memory"] =
        OrderedJson{{"attention_weight_bytes", model.attention_weight_bytes()},
                    {"kv_bytes", model.kv_bytes_per_sequence() * static_cast<double>(best.sequences_per_gpu())},
                    {"ffn_weight_bytes", model.ffn_weight_bytes(best.candidate)}};
    out["link_bits_per_second"] = model.link_bits_per_second(best.candidate, static_cast<double>(best.rows));
  } else {
    out["infeasible"] =
        OrderedJson{{"reason", answer.result.infeasible.reason}, {"nearest", answer.result.infeasible.nearest}};
  }
  out["pareto"] = OrderedJson::array();
  for (const DeploymentPlan& p : answer.pareto) out["pareto"].push_back(plan_json(model, p));
  out["contexts"] = OrderedJson::array();
  for (const ContextAnswer& a : answer.contexts) {
    OrderedJson row{{"context", a.context}, {"plan", nullptr}};
    if (a.result.best) row["plan"] = plan_json(model, *a.result.best);
    out["contexts"].push_back(std::move(row));
  }
  return to_line(out) + "\n";
}

}  // namespace tandem
