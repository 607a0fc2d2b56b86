// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem bench slice: an attention GPU and an FFN GPU of a deployment of Step-3, at full size.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <set>
#include <sstream>

#include "base/error.h"
#include "base/format.h"
#include "cli/command.h"
#include "cli/plan_options.h"
#include "ops/cuda/bench/gpu_limits.h"
#include "slice/hand_over_time.h"
#include "slice/slice_report.h"
#include "slice/slice_timeline.h"

namespace tandem {

namespace {

// "8K" as 8192. What is no number of tokens stays, for the check that follows.
std::string plain_tokens(const std::string& text) {
  try {
    return std::to_string(parse_tokens(text, "--context"));
  } catch (const Error&) {
    return text;
  }
}

struct Options {
  std::vector<std::string> deployments{"2A2F"}, layouts;
  std::string routing = "uniform";
  double tpot_ms = 50;
  SliceOptions slice;
  std::string experts = "whole", sides = "both";
  std::string flags_by;                                                    // none: not asked for
  std::vector<std::int32_t> rows;                                          // none: to be found
  std::vector<std::int32_t> micro_batches, expert_parallel_micro_batches;  // none: not asked for
  std::string trace;
  bool hand_over = false, json = false;
};

constexpr std::int32_t kTraceSteps = 24, kTimelineSteps = 3;
// Micro-batches where nobody said how many: without sides with rows that are asked for (with sides the slice's own),
// and to try.
constexpr std::int32_t kWithoutSides = 2;
const std::vector<std::int32_t> kTriedWithSides{2, 3, 4}, kTriedWithoutSides{2, 3};

double exponent_of(const std::string& routing) {
  if (routing == "uniform") return 0;
  const std::string zipf = "zipf:";
  std::istringstream number(routing.rfind(zipf, 0) == 0 ? routing.substr(zipf.size()) : "");
  double exponent = -1;
  if (!(number >> exponent) || !number.eof() || !(exponent >= 0 && exponent <= 3))
    throw Error(ErrorCode::kInvalidArgument,
                format("--routing '{}': wanted uniform or zipf:S, S from 0 to 3", routing));
  return exponent;
}

void print(const SliceReport& report, const Options& options) {
  std::fputs((options.json ? slice_json(report) + "\n" : slice_text(report)).c_str(), stdout);
  std::fflush(stdout);
}

SliceSides sides_of(const std::string& text) {
  return text == "both" ? SliceSides::kBoth : text == "attention" ? SliceSides::kAttention : SliceSides::kFfn;
}

void check_that_they_go_together(const Options& options) {
  const SliceOptions& slice = options.slice;
  const bool both = slice.sides == SliceSides::kBoth;
  const auto has_sides = [](const std::string& text) { return SliceDeployment::parse(text).disaggregated(); };
  const bool any_has_sides = std::ranges::any_of(options.deployments, has_sides);
  const auto wrong = [](const char* message) { throw UsageError(message); };
  if (!options.trace.empty() && !any_has_sides)
    wrong("--trace: a timeline is of two sides, and --deploy names none that has them");
  if (!options.flags_by.empty() && !any_has_sides)
    wrong("--flags-by: hand-overs are between two sides, and --deploy names none that has them");
  if (!both && (slice.link.added() || slice.stall_ffn_us > 0))
    wrong("--link-us, --link-gbps and --stall-ffn-us are of both sides together");
  if (!both && !slice.alone) wrong("--no-alone is of both sides together: with --sides one of them is alone");
}

// A file that cannot be written is an error before minutes of measuring.
void prepare_trace(Options& options) {
  SliceOptions& slice = options.slice;
  if (!options.trace.empty()) write_slice_timeline({}, 0, options.trace);
  const bool wanted = !options.trace.empty() || slice.link.added() || slice.stall_ffn_us > 0;
  if (wanted && slice.trace_steps == 0) slice.trace_steps = kTraceSteps;
}

std::string name_of(const SliceDeployment& deployment, const SliceBatch& batch) {
  return format("{}, {} x {}", deployment.to_string(), batch.micro_batches, batch.rows);
}

// All rows that were asked for, with all micro-batches; the best of those that there is memory for, or none.
SliceReport measure_rows(const Options& options, const SliceOptions& slice, const cuda::GpuLimits& limits,
                         const std::vector<std::int32_t>& micro_batches) {
  std::vector<SliceBatch> batches;
  for (const std::int32_t count : micro_batches)
    for (const std::int32_t rows : options.rows) batches.push_back({.micro_batches = count, .rows = rows});
  SliceReport best;
  measure_batches(
      slice, batches, limits,
      {.on_report =
           [&](const SliceReport& report) {
             print(report, options);
             if (best.options.rows == 0 || report.tokens_per_second_per_gpu() > best.tokens_per_second_per_gpu())
               best = report;
           },
       .on_no_room =
           [&](const SliceBatch& batch, const Error& error) {
             std::fputs(format("{}: {}\n", name_of(slice.deployment, batch), error.what()).c_str(), stderr);
           }});
  return best;
}

// With the rows that were asked for, else the best within the time; none: without rows.
SliceReport measure(const Options& options, const cuda::GpuLimits& limits) {
  SliceOptions slice = options.slice;
  const bool has_sides = slice.deployment.disaggregated();
  std::vector<std::int32_t> micro_batches = has_sides ? options.micro_batches : options.expert_parallel_micro_batches;
  if (micro_batches.empty()) {
    micro_batches = has_sides ? kTriedWithSides : kTriedWithoutSides;
    if (!options.rows.empty()) micro_batches = {has_sides ? slice.micro_batches : kWithoutSides};
  }
  if (!has_sides) slice.trace_steps = 0;
  if (!options.rows.empty()) return measure_rows(options, slice, limits, micro_batches);
  const SliceSearch search{.tpot_us = options.tpot_ms * 1e3, .micro_batches = micro_batches};
  const SliceReport best = best_slice(slice, search, limits, [](const SliceReport& tried) {
    std::fputs(format("{}: {:.2f} ms\n", name_of(tried.options.deployment, tried.options.batch()),
                      tried.together.median * 1e-3)
                   .c_str(),
               stderr);
  });
  if (best.options.rows == 0)
    std::fputs(format("{}: no batch keeps {} ms\n", slice.deployment.to_string(), options.tpot_ms).c_str(), stderr);
  else
    print(best, options);
  return best;
}

// Every deployment of two sides with every one without.
void compare(const std::vector<SliceReport>& reports) {
  for (const SliceReport& r : reports)
    for (const SliceReport& baseline : reports)
      if (r.options.sides == SliceSides::kBoth && r.options.deployment.disaggregated() &&
          !baseline.options.deployment.disaggregated() && r.options.rows > 0 && baseline.options.rows > 0)
        std::fputs(comparison_text(r, baseline).c_str(), stdout);
}

// By itself it has GPUs and a form of the report, and nothing of a slice.
int run_hand_over(const Options& options, const CLI::App& app) {
  const std::set<std::string> shared{"--hand-over", "--gpu-a", "--gpu-f", "--json"};
  for (const CLI::Option* option : app.get_options())
    if (option->count() > 0 && !shared.contains(option->get_name()))
      throw UsageError(format("{} is of a slice, and --hand-over runs none", option->get_name()));
  const HandOverReport report =
      measure_hand_overs({.first_gpu = options.slice.attention_gpu, .second_gpu = options.slice.ffn_gpu});
  std::fputs((options.json ? hand_over_json(report) : hand_over_text(report)).c_str(), stdout);
  return 0;
}

int run_slice(Options options) {
  SliceOptions& slice = options.slice;
  slice.zipf_exponent = exponent_of(options.routing);
  slice.sides = sides_of(options.sides);
  if (!options.flags_by.empty())
    slice.flags = options.flags_by == "threads" ? cuda::FlagsBy::kThreads : cuda::FlagsBy::kFrontEnds;
  check_that_they_go_together(options);
  prepare_trace(options);
  std::vector<SliceDeployment> deployments;
  for (const std::vector<std::string>& list : {options.deployments, options.layouts})
    for (const std::string& text : list) deployments.push_back(SliceDeployment::parse(text));
  const cuda::GpuLimits limits = cuda::measure_gpu_limits();
  if (!options.json)
    std::fputs(format("{}: reads {:.2f} TB/s, does {:.0f} TFLOP/s in FP8\n", limits.gpu,
                      limits.read_bytes_per_second * 1e-12, limits.fp8_flops_per_second * 1e-12)
                   .c_str(),
               stdout);
  const bool width_is_cut = options.experts == "cut" || options.experts == "ep2tp8";
  std::vector<SliceReport> best;
  for (const SliceDeployment& deployment : deployments) {
    slice.deployment = deployment;
    slice.deployment.width_is_cut = width_is_cut && deployment.disaggregated();
    best.push_back(measure(options, limits));
    if (const SliceTrace& trace = best.back().trace; !options.trace.empty() && trace.steps > 0)
      write_slice_timeline(trace, kTimelineSteps, options.trace);
  }
  if (!options.json) compare(best);
  return std::ranges::all_of(best, [](const SliceReport& report) { return report.options.rows > 0; }) ? 0 : 1;
}

// What is looked at closely, and what is made worse to see it.
void declare_trace_and_delays(CLI::App& app, Options& options) {
  SliceOptions& slice = options.slice;
  app.add_option(
      "--trace", options.trace,
      "writes a timeline of the last of further steps with stamps for chrome://tracing or Perfetto; the report has the "
      "stages' times");
  app.add_option("--trace-steps", slice.trace_steps,
                 format("further steps with stamps, for the report's stages; {} with --trace", kTraceSteps))
      ->check(CLI::Range(2, 1000));
  app.add_option("--link-us", slice.link.latency_us, "latency that a network would add to each hand-over and return")
      ->check(CLI::Range(0., 10000.));
  app.add_option("--link-gbps", slice.link.gbps,
                 "rate of such a network: the bytes that a GPU sends or takes there go one after the other")
      ->check(CLI::Range(10., 100000.));
  app.add_option("--stall-ffn-us", slice.stall_ffn_us, "that the FFN GPU loses in every layer, to see what is reported")
      ->check(CLI::Range(0., 1000.));
}

}  // namespace

Action declare_bench_slice(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  SliceOptions& slice = options->slice;
  app.add_option("--deploy", options->deployments, "servers of eight GPUs on each side; several to compare")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option(
         "--experts", options->experts,
         "how they lie on FFN GPUs: whole, or an eighth of the width of all of the server's; ep16 and ep2tp8 are "
         "the same, as of 2A2F")
      ->check(CLI::IsMember({"whole", "ep16", "cut", "ep2tp8"}))
      ->capture_default_str();
  app.add_option("--layout", options->layouts,
                 "ep16, ep24: to compare, attention and whole experts on each of so many GPUs, at its own best batch "
                 "unless --rows says one")
      ->delimiter(',')
      ->check(CLI::IsMember({"ep16", "ep24"}));
  app.add_option("--layout-micro-batches", options->expert_parallel_micro_batches,
                 "of ep16 and ep24, as --micro-batches; 2 with --rows, else 2,3")
      ->delimiter(',')
      ->check(CLI::Range(1, 8));
  app.add_option("--context", slice.context, "tokens of every sequence, such as 8192 or 8K")
      ->check(CLI::Range(64, 65536))
      ->transform(plain_tokens)
      ->capture_default_str();
  app.add_option("--rows", options->rows,
                 "sequences of a micro-batch on an attention GPU, several to measure with the same weights; else those "
                 "that make most within --tpot-ms")
      ->delimiter(',')
      ->check(CLI::Range(1, SliceOptions::kRowsMax));
  app.add_option("--tpot-ms", options->tpot_ms, "time per token to keep")
      ->check(CLI::Range(1., 10000.))
      ->capture_default_str();
  app.add_option("--micro-batches", options->micro_batches,
                 "on their way at once, several to try; 3 with --rows, else 2,3,4")
      ->delimiter(',')
      ->check(CLI::Range(1, 8));
  app.add_option("--routing", options->routing, "who is chosen: uniform, or zipf:S")->capture_default_str();
  app.add_option("--layers", slice.model.layers, "of 61; fewer for a trial")
      ->check(CLI::Range(6, 61))
      ->capture_default_str();
  app.add_option("--steps", slice.steps, "measured")->check(CLI::Range(1, 1000000))->capture_default_str();
  app.add_option("--warm-up-seconds", slice.warm_up_seconds,
                 "at most, before the steps that are measured; less where step times have settled")
      ->check(CLI::Range(0., 600.))
      ->capture_default_str();
  app.add_flag("!--no-alone", slice.alone, "leaves out each side with nobody to wait for, and with it bubbles");
  app.add_option("--flags-by", options->flags_by,
                 "who raises the flag of a hand-over and waits for it: streams' front ends, or threads that spin")
      ->check(CLI::IsMember({"threads", "front-ends"}))
      ->default_str("front-ends");
  app.add_flag("--hand-over", options->hand_over,
               "only what a hand-over of 4 bytes to 3.5 MiB takes in a graph, one way, by stores and by a copy engine");
  app.add_option("--gpu-a", slice.attention_gpu, "the attention GPU")->check(CLI::Range(0, 15))->capture_default_str();
  app.add_option("--gpu-f", slice.ffn_gpu, "the FFN GPU")->check(CLI::Range(0, 15))->capture_default_str();
  app.add_option("--sides", options->sides, "both, or one of them where there is one GPU")
      ->check(CLI::IsMember({"both", "attention", "ffn"}))
      ->capture_default_str();
  declare_trace_and_delays(app, *options);
  app.add_flag("--json", options->json, "one JSON object a line");
  return [options, &app] { return options->hand_over ? run_hand_over(*options, app) : run_slice(*options); };
}

}  // namespace tandem
