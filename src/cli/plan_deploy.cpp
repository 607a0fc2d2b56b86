// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem plan deploy: how many of what, for a time per token and a load; and tandem plan check of the file it writes.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "base/format.h"
#include "cli/command.h"
#include "cli/plan_options.h"
#include "plan/deployment_report.h"
#include "plan/measured.h"
#include "plan/plan_file.h"
#include "plan/planned_deployment.h"
#include "roles/deployment_engine.h"

namespace tandem {

namespace {

struct Options {
  std::vector<std::string> attention{"h20"}, ffn{"h800"};  // all pairs are looked at
  std::string model = "step3", context, kv = "fp8", format = "text", output, toml;
  double tpot_ms = 50, requests_per_second = 0, efficiency = 1, network_efficiency = 1, memory_fraction = 0.9;
  std::string input_tokens = "1024", output_tokens = "512";
  std::string attention_kernels, ffn_kernels;
  bool share_output = false;
  SearchLimits limits;
  std::vector<std::int32_t> micro_batches{2, 4};
  PlacementOptions placement;
};

// What decoding sees of lengths of requests: a sequence's context grows from its input by its output, and long answers
// are seen longer, so the mean is E[in] + E[out²] / 2E[out].
struct Load {
  double tokens_per_second = 0;
  std::int64_t context = 0;
};

Load load_of(const Options& o) {
  const TokenRange in = parse_token_range(o.input_tokens, "--input-tokens");
  const TokenRange out = parse_token_range(o.output_tokens, "--output-tokens");
  return {o.requests_per_second * out.mean(), std::llround(in.mean() + out.mean_square() / (2 * out.mean()))};
}

void take_measurements(const Options& o, const ModelShape& shape, DecodeSettings& s, std::vector<std::string>& notes) {
  const auto take = [&](const std::string& path, Hardware& hardware, bool attention) {
    if (path.empty()) return;
    const KernelMeasurements measured = parse_kernel_measurements(read_plan_file(path), path);
    hardware = with_measured_rates(hardware, measured);
    const MeasuredEfficiency found = measured_efficiency(measured, shape, s.precision.kv, s.context);
    const MeasuredStages stages = measured_stages(measured, shape, s.precision.kv, path);
    if (stages.ladders && (attention ? stages.ladders->has_attention() : !stages.ladders->ffn_gpus().empty())) {
      (attention ? s.attention_ladders : s.ffn_ladders) = stages.ladders;
      notes.push_back(format("{} measured: {}", attention ? "attention" : "FFN", stages.note));
      return;
    }
    if (!measured.stages.empty())
      notes.push_back(format("{} not used: {}", attention ? "attention" : "FFN",
                             stages.ladders ? "no stage of it was measured" : stages.note));
    if (attention) {
      s.efficiency.attention = found.efficiency.attention;
      s.efficiency.projection = found.efficiency.projection;
    } else {
      s.efficiency.ffn = found.efficiency.ffn;
    }
    notes.push_back(format("{} measured: {}{}", attention ? "attention" : "FFN",
                           found.used.empty() ? "its rates alone" : join(found.used, ", "),
                           found.missing.empty() ? "" : format("; not measured: {}", join(found.missing, ", "))));
  };
  take(o.attention_kernels, s.attention, true);
  take(o.ffn_kernels, s.ffn, false);
}

// One accelerator for attention and one for the FFN, and the best plan with them.
struct Pair {
  std::string attention, ffn;
  DecodeModel model;
  std::vector<std::string> notes;
  SearchResult result;
};

std::vector<Pair> search_pairs(const Options& o, const Load& load, const DeploymentGoal& goal) {
  const ModelShape shape = find_shape(o.model);
  std::vector<Pair> pairs;
  for (const std::string& attention : o.attention) {
    for (const std::string& ffn : o.ffn) {
      DecodeSettings s{.context = o.context.empty() ? load.context : parse_tokens(o.context, "--context"),
                       .precision = {},
                       .attention = find_this_or_hardware(attention),
                       .ffn = find_this_or_hardware(ffn),
                       .efficiency = {o.efficiency, o.efficiency, o.efficiency, o.network_efficiency},
                       .memory_fraction = o.memory_fraction};
      s.precision.kv = o.kv == "fp8" ? DType::kF8E4M3 : DType::kBF16;
      if (o.share_output) s.output_parallel = s.attention.gpus_per_server;
      std::vector<std::string> notes;
      take_measurements(o, shape, s, notes);
      const DecodeModel model(shape, s);
      pairs.push_back({attention, ffn, model, notes, search_deployment(model, goal)});
    }
  }
  return pairs;
}

// The cheapest pair; of none that has a plan the first.
const Pair& cheapest(const std::vector<Pair>& pairs, bool by_hour) {
  const auto price = [&](const Pair& pair) {
    if (!pair.result.best) return 1e300;
    return by_hour ? pair.result.best->usd_per_hour : pair.result.best->usd_per_million;
  };
  return *std::ranges::min_element(pairs, {}, price);
}

std::string pairs_text(const std::vector<Pair>& pairs) {
  std::string out;
  for (const Pair& pair : pairs)
    out += format("pair       {} and {}: {}\n", pair.model.settings().attention.name, pair.model.settings().ffn.name,
                  pair.result.best ? format("{}, {:.2f} ms a token, {:.4f} USD per 1M tokens, {:.2f} USD an hour",
                                            layout_text(pair.result.best->candidate), pair.result.best->tpot * 1e3,
                                            pair.result.best->usd_per_million, pair.result.best->usd_per_hour)
                                   : format("no plan, {}", pair.result.infeasible.reason));
  return out;
}

int run(const Options& o) {
  if ((!o.attention_kernels.empty() && o.attention.size() > 1) || (!o.ffn_kernels.empty() && o.ffn.size() > 1))
    throw UsageError("measured kernels are those of one accelerator: name one with --gpus-a or --gpus-f");
  const Load load = load_of(o);
  DeploymentGoal goal{.tpot = o.tpot_ms * 1e-3, .tokens_per_second = load.tokens_per_second, .limits = o.limits};
  goal.limits.micro_batches_min = o.micro_batches.front();
  goal.limits.micro_batches_max = o.micro_batches.back();
  const std::vector<Pair> pairs = search_pairs(o, load, goal);
  const Pair& best = cheapest(pairs, goal.tokens_per_second > 0);
  const DeploymentAnswer answer = answer_deployment(best.model, goal);
  const bool text = o.format == "text";
  write_output(o.output,
               text ? (pairs.size() > 1 ? pairs_text(pairs) : "") + deployment_text(best.model, answer, best.notes)
                    : deployment_json(best.model, answer));
  if (!answer.result.best) return 1;
  if (o.toml.empty()) return 0;
  if (best.attention == "this" || best.ffn == "this")
    throw Error(
        ErrorCode::kInvalidArgument,
        "--toml needs hardware that a check finds again: tandem bench machine --toml writes this machine's file");
  PlacementOptions placement = o.placement;
  if (placement.checkpoint.empty()) placement.checkpoint = o.model;
  const DeploymentPlanned planned{o.model, best.attention, best.ffn, best.model.settings().context, o.tpot_ms};
  write_output(o.toml, to_toml(make_deployment(best.model, *answer.result.best, planned, placement)));
  return 0;
}

void declare_limits(CLI::App& app, Options& o) {
  app.add_option("--attention-servers", o.limits.attention_servers_max, "at most")->capture_default_str();
  app.add_option("--ffn-servers", o.limits.ffn_servers_max, "at most")->capture_default_str();
  app.add_option("--attention-servers-min", o.limits.attention_servers_min, "at least")->capture_default_str();
  app.add_option("--ffn-servers-min", o.limits.ffn_servers_min, "at least")->capture_default_str();
  app.add_option("--micro-batches", o.micro_batches, "from this many to that many")
      ->delimiter(':')
      ->expected(1, 2)
      ->capture_default_str();
  app.add_option("--rows", o.limits.rows_max, "of a micro-batch on one attention GPU, at most")->capture_default_str();
  app.add_option("--rows-min", o.limits.rows_min, "at least")->capture_default_str();
}

void declare_file(CLI::App& app, Options& o) {
  app.add_option("--toml", o.toml, "a deployment file to write");
  app.add_option("--checkpoint", o.placement.checkpoint, "as each host sees it; --model unless given");
  app.add_option("--name", o.placement.name, "of the deployment");
  app.add_option("--attention-hosts", o.placement.attention_hosts, "one for each attention server")->delimiter(',');
  app.add_option("--ffn-hosts", o.placement.ffn_hosts, "one for each FFN server")->delimiter(',');
  app.add_option("--secret-file", o.placement.secret_file, "as each host sees it")->capture_default_str();
}

int run_check(const std::string& path) {
  const Deployment d = read_deployment(path);
  DeploymentVerdict verdict = check_planned(d);
  try {
    check_supported(d, /*insecure=*/true);
  } catch (const Error& error) {
    verdict.faults.push_back(error.message());
  }
  std::fputs(format("{}: {} attention and {} FFN workers, {} of them replicas\n", d.name, d.attention.size(),
                    d.ffn.size(), d.ffn.size() - static_cast<std::size_t>(d.primaries()))
                 .c_str(),
             stdout);
  if (!d.planned) std::fputs("no [planned]: memory and time were not reckoned\n", stdout);
  for (const std::string& fact : verdict.facts) std::fputs(format("good   {}\n", fact).c_str(), stdout);
  for (const std::string& fault : verdict.faults) std::fputs(format("wrong  {}\n", fault).c_str(), stdout);
  return verdict.faults.empty() ? 0 : 1;
}

}  // namespace

Action declare_plan_deploy(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  Options& o = *options;
  app.add_option("-m,--model", o.model, model_help())->capture_default_str();
  app.add_option("--gpus-a", o.attention, "of attention, several to find the cheapest pair: " + hardware_help())
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--gpus-f", o.ffn, "of the FFN: the same")->delimiter(',')->capture_default_str();
  app.add_option("--context", o.context, "average tokens of context while decoding; from the lengths unless given");
  app.add_option("--tpot-ms", o.tpot_ms, "time per token, at most")->capture_default_str();
  app.add_option("--load", o.requests_per_second, "requests a second that have to be answered; 0: as many as come")
      ->check(CLI::Range(0.0, 1e9))
      ->capture_default_str();
  app.add_option("--input-tokens", o.input_tokens, "of a request: 512, or evenly spread 64:1024")
      ->capture_default_str();
  app.add_option("--output-tokens", o.output_tokens, "of an answer, likewise")->capture_default_str();
  app.add_option("--kv", o.kv, "type of the cache where the model leaves it open")
      ->check(CLI::IsMember({"fp8", "bf16"}))
      ->capture_default_str();
  app.add_option("--efficiency", o.efficiency, "of all computing: fraction of the roofline; 1 is ideal")
      ->capture_default_str();
  app.add_option("--network-efficiency", o.network_efficiency, "of links")->capture_default_str();
  app.add_option(
      "--kernels-a", o.attention_kernels,
      "rates and efficiencies of attention, or with --stages its times: a file of tandem bench kernels --json");
  app.add_option("--kernels-f", o.ffn_kernels, "the same of the FFN");
  app.add_option("--memory-fraction", o.memory_fraction, "of an accelerator, for weights and KV")
      ->capture_default_str();
  app.add_flag("--share-output", o.share_output,
               "the GPUs of an attention server share the output projection's weights");
  declare_limits(app, o);
  declare_file(app, o);
  app.add_option("--format", o.format, "text or json")->check(CLI::IsMember({"text", "json"}))->capture_default_str();
  app.add_option("-o,--output", o.output, "a file to write, in place of standard output");
  return [options] { return run(*options); };
}

Action declare_plan_check(CLI::App& app) {
  const auto path = std::make_shared<std::string>();
  app.add_option("file", *path, "a deployment file")->required();
  return [path] { return run_check(*path); };
}

}  // namespace tandem
