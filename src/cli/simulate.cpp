// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem simulate: deployments of processes on a virtual clock and a network that fails, seed by seed.
#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/format.h"
#include "cli/command.h"
#include "engine/settings/machine.h"
#include "sim/fleet/fleet.h"
#include "synthetic/checkpoint_maker.h"
#include "synthetic/published_config.h"

namespace tandem {

namespace {

struct Options {
  std::int64_t seeds = 300;
  std::uint64_t first = 1;
  std::vector<std::string> layouts = {"1A1F", "2A2F", "3A2F", "1A3F", "2A1F", "2A2F+1", "1A1F+2"};
  std::string model;
  std::int32_t threads = 0;
  bool log = false;
};

class TinyModel {
 public:
  TinyModel() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tandem_simulate_XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw Error(ErrorCode::kOutOfResources, "cannot make a temporary folder");
    folder_ = pattern;
    const OrderedJson config = resize(find_config("qwen3_moe"), {.scale = .01,
                                                                 .layers = 3,
                                                                 .hidden = 128,
                                                                 .experts = 8,
                                                                 .vocab = 512,
                                                                 .fp8 = {},
                                                                 .settings = {{"num_experts_per_tok", 2}}});
    write_checkpoint(plan_checkpoint(config), path(), {});
  }
  ~TinyModel() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  TinyModel(const TinyModel&) = delete;
  TinyModel& operator=(const TinyModel&) = delete;
  std::string path() const { return folder_ + "/model"; }

 private:
  std::string folder_;
};

struct Totals {
  std::int64_t failed = 0, answers = 0, tokens = 0, epochs = 0, preemptions = 0;
  Nanoseconds time = 0;
  FleetFaults faults;

  void add(const FleetRun& run) {
    failed += !run.failure.empty();
    answers += run.answers;
    tokens += run.tokens;
    epochs += run.epochs;
    preemptions += run.preemptions;
    time += run.time;
    faults += run.faults;
  }
};

struct Sizes {
  Layout layout;
  std::int32_t replicas = 0;
};

// "2A2F+1": one replica.
Sizes parse_sizes(const std::string& text) {
  Sizes sizes;
  const std::size_t plus = text.find('+');
  sizes.layout = parse_layout(text.substr(0, plus));
  if (sizes.layout.local()) throw UsageError(format("--layout {}: give layouts such as 2A1F or 2A1F+1", text));
  if (sizes.layout.ffn_width > 1)
    throw UsageError(format("--layout {}: simulated layouts do not cut experts by width", text));
  if (plus == std::string::npos) return sizes;
  const char *at = text.data() + plus + 1, *end = text.data() + text.size();
  const auto [next, failure] = std::from_chars(at, end, sizes.replicas);
  if (failure != std::errc() || next != end || sizes.replicas < 1 || sizes.replicas > kWorkersMax)
    throw UsageError(format("--layout {}: after + comes how many replicas, 1 … {}", text, kWorkersMax));
  return sizes;
}

void show(const Options& options, const Totals& t) {
  const FleetFaults& f = t.faults;
  std::string out = format("seeds              {}, {} failed\n", options.seeds, t.failed);
  out += format("answers            {} of {} tokens, in {} s of virtual time\n", t.answers, t.tokens, t.time / kSecond);
  out += format("epochs             {}\nsequences preempted {}\n", t.epochs, t.preemptions);
  out += format("killed             {} workers, {} lost without a word, {} fronts\n", f.kills, f.silent_kills,
                f.front_kills);
  out += format(
      "paused             {} workers\ncut off            {} pairs of processes\ndrained            {}, {} requests "
      "moved with {} blocks of KV\n",
      f.pauses, f.cuts, f.drains, f.moved_requests, f.moved_pages);
  out += format("hand-over messages {}: {} lost, {} delayed, {} repeated, {} damaged, {} stale ones sent before\n",
                f.network.messages, f.network.lost, f.network.delayed, f.network.repeated, f.network.damaged,
                f.network.stale);
  std::fputs(out.c_str(), stdout);
}

int run(const Options& options) {
  std::unique_ptr<TinyModel> tiny;
  if (options.model.empty()) tiny = std::make_unique<TinyModel>();
  const std::string model = tiny ? tiny->path() : options.model;
  std::vector<FleetModel> models;
  for (const std::string& text : options.layouts) {
    const Sizes sizes = parse_sizes(text);
    models.push_back(FleetModel::load(model, sizes.layout.attention_workers, sizes.layout.ffn_workers, sizes.replicas));
  }
  Totals totals;
  std::mutex mutex;  // guards totals and the output
  std::atomic<std::int64_t> next = 0;
  const auto work = [&] {
    for (std::int64_t i = next++; i < options.seeds; i = next++) {
      const std::uint64_t seed = options.first + static_cast<std::uint64_t>(i);
      const std::size_t which = seed % models.size();
      const FleetRun run = simulate_fleet(models[which], seed);
      std::lock_guard lock(mutex);
      totals.add(run);
      if (options.log || !run.failure.empty())
        for (const std::string& line : run.log) std::printf("%s\n", line.c_str());
      if (!run.failure.empty())
        std::printf("seed %llu, %s: %s\n", static_cast<unsigned long long>(seed), options.layouts[which].c_str(),
                    run.failure.c_str());
    }
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < (options.threads > 0 ? options.threads : usable_cores()); ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  show(options, totals);
  return totals.failed == 0 ? 0 : 1;
}

}  // namespace

Action declare_simulate(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  Options& o = *options;
  app.add_option("--seeds", o.seeds, "how many")->check(CLI::Range(1, 100'000'000))->capture_default_str();
  app.add_option("--first-seed", o.first, "the others follow it")->capture_default_str();
  app.add_option("--layout", o.layouts, "which seeds take in turn; 2A2F+1: with a replica of an FFN worker")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--model", o.model, "a small checkpoint; unless given one of random weights is made");
  app.add_option("--threads", o.threads, "seeds at the same time; 0: as many as cores")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_flag("--log", o.log, "what happened, also of seeds that did not fail");
  return [options] { return run(*options); };
}

}  // namespace tandem
