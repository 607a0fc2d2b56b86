// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem bench serve: how fast a running server answers, ours or any other with OpenAI's interface.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>

#include "base/format.h"
#include "cli/command.h"
#include "traffic/plot.h"
#include "traffic/report.h"

namespace tandem {

namespace {

constexpr int kModelsTimeoutMs = 10'000;

struct Options {
  WorkloadConfig workload;
  GeneratorConfig generator;
  LatencyLimits limits;
  std::string url = "http://127.0.0.1:8000/v1", input = "128", output = "64", endpoint = "chat", plot;
  bool json = false, quiet = false;
};

// The first model that the server names.
std::string first_model(const Endpoints& server, const std::string& key) {
  const std::string body = call_and_wait(server, request_text(server.address, "/models", key, ""), kModelsTimeoutMs);
  const Json json = parse_json(body, "/models");
  if (!json.is_object() || !json.contains("data") || !json["data"].is_array() || json["data"].empty() ||
      !json["data"][0].is_object() || !json["data"][0]["id"].is_string())
    throw Error(ErrorCode::kInvalidData, "the server names no model at /models: give one (--model)");
  return json["data"][0]["id"];
}

// A line on a terminal; nothing elsewhere.
OnEnded progress_line(std::size_t requests, bool quiet) {
  if (quiet || !isatty(STDERR_FILENO)) return {};
  return [requests](std::size_t ended) {
    std::fputs(format("\r\033[K{}", ended == requests ? "" : format("{} of {} requests", ended, requests)).c_str(),
               stderr);
  };
}

void write_plot(const std::string& path, const std::string& svg) {
  std::ofstream file(path);
  file << svg;
  if (!file.flush()) throw Error(ErrorCode::kInvalidArgument, format("cannot write the plot to {} (--plot)", path));
}

OrderedJson settings_json(const Options& o) {
  const WorkloadConfig& w = o.workload;
  return {{"url", o.url},
          {"model", w.model},
          {"endpoint", o.endpoint},
          {"concurrency", o.generator.concurrency},
          {"rate", w.rate},
          {"input_tokens", o.input},
          {"output_tokens", o.output},
          {"dataset", w.dataset},
          {"seed", w.seed},
          {"temperature", w.temperature}};
}

int run(Options& o) {
  o.workload.input = parse_token_range(o.input);
  o.workload.output = parse_token_range(o.output);
  o.workload.chat = o.endpoint == "chat";
  o.generator.path = o.workload.chat ? "/chat/completions" : "/completions";
  if (!o.plot.empty()) write_plot(o.plot, "");  // found out now, not after an hour of work
  const Endpoints server = look_up(parse_server_address(o.url));
  if (o.workload.model.empty()) o.workload.model = first_model(server, o.generator.api_key);
  const std::vector<LoadRequest> workload = make_workload(o.workload);
  const RealClock clock;
  const std::vector<LoadRecord> records =
      run_workload(workload, server, o.generator, clock, progress_line(workload.size(), o.quiet));
  const LoadReport report = make_report(records, o.limits);
  if (!o.plot.empty())
    write_plot(
        o.plot,
        plot_svg(records, o.limits,
                 format("{}, {} requests, {:.1f} output tokens per second, goodput {:.2f} requests per second",
                        o.workload.model, report.requests, report.output_tokens_per_second(), report.goodput())));
  if (o.json)
    std::fputs((to_line(OrderedJson{{"settings", settings_json(o)}, {"result", report_json(report)}}) + "\n").c_str(),
               stdout);
  else
    std::fputs(report_text(report).c_str(), stdout);
  return report.failed == report.requests && report.requests > 0 ? 1 : 0;
}

}  // namespace

Action declare_bench_serve(CLI::App& app) {
  const auto o = std::make_shared<Options>();
  const auto option = [&](const char* name, auto& value, const char* text, const char* group) {
    return app.add_option(name, value, text)->capture_default_str()->group(group);
  };
  const char *server = "Server", *load = "Load", *result = "Result";
  option("--url", o->url, "the interface's base, with http:// in front", server);
  option("--api-key", o->generator.api_key, "shown to the server", server)->envname("TANDEM_BENCH_API_KEY");
  option("--model", o->workload.model, "the first one that the server names unless said", server);
  option("--endpoint", o->endpoint, "chat or completions", server)->check(CLI::IsMember({"chat", "completions"}));
  option("--requests", o->workload.requests, "in sum", load)->check(CLI::Range(1, 10'000'000));
  option("--concurrency", o->generator.concurrency, "requests under way at most", load)->check(CLI::Range(1, 20'000));
  option("--rate", o->workload.rate, "arrivals per second, at random (Poisson); 0: each when one before has ended",
         load);
  option("--input-tokens", o->input, "length of prompts, as 128 or 64:512", load);
  option("--output-tokens", o->output, "length of answers", load);
  option("--dataset", o->workload.dataset, "JSONL file of requests: prompt or messages, and any other field", load);
  option("--seed", o->workload.seed, "of prompts, lengths and arrivals", load);
  option("--temperature", o->workload.temperature, "of sampling", load)->check(CLI::Range(0.0, 2.0));
  app.add_flag("--stop-early", o->workload.stop_early, "do not send ignore_eos: answers end where the model ends them")
      ->group(load);
  option("--timeout-ms", o->generator.timeout_ms, "of each request", load)->check(CLI::Range(1, 86'400'000));
  option("--first-token-ms-max", o->limits.first_token_ms, "for goodput; 0: any", result)
      ->check(CLI::NonNegativeNumber);
  option("--per-token-ms-max", o->limits.per_token_ms, "for goodput, of each further token", result)
      ->check(CLI::NonNegativeNumber);
  option("--end-to-end-ms-max", o->limits.end_to_end_ms, "for goodput", result)->check(CLI::NonNegativeNumber);
  app.add_flag("--json", o->json, "one JSON object instead of a table")->group(result);
  option("--plot", o->plot, "SVG file to write the distributions to", result);
  app.add_flag("-q,--quiet", o->quiet, "no progress on standard error")->group(result);
  return [o] { return run(*o); };
}

}  // namespace tandem
