// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem bench load: how fast a model is loaded, beside how fast its files can be read, and the most memory it takes.
//
// Each loading happens in a process of its own, which is forked before there is any thread: its peak of resident memory
// is then that of a program that loads this model, and the next loading begins with nothing.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "base/format.h"
#include "base/json.h"
#include "checkpoint/file_rate.h"
#include "cli/command.h"
#include "cli/engine_options.h"
#include "engine/settings/machine.h"

namespace tandem {

namespace {

struct Options {
  EngineOptions engine;
  std::int32_t repeats = 3;
  bool json = false;
};

// What a loading process tells: fixed size, over a pipe.
struct Loading {
  bool done = false;
  double seconds = 0;
  std::int64_t peak_bytes = 0;
};

Loading load_here(const EngineOptions& options) {
  Loading loading;
  const std::unique_ptr<Checkpoint> checkpoint = Checkpoint::open(options.model);
  RunningEngine engine(*checkpoint, options);
  loading.seconds = engine.load_seconds();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  loading.peak_bytes = std::int64_t{usage.ru_maxrss} * 1024;  // the kernel counts in KiB
  loading.done = true;
  return loading;
}

// Throws Error when the process does not load; it has said why on standard error.
Loading load_apart(const EngineOptions& options) {
  int ends[2];
  if (pipe(ends) != 0) throw Error(ErrorCode::kOutOfResources, "no pipe to a process that loads");
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) throw Error(ErrorCode::kOutOfResources, "no process to load in");
  if (child == 0) {
    Loading loading;
    try {
      loading = load_here(options);
    } catch (const std::exception& error) {
      std::fputs(format("tandem: {}\n", error.what()).c_str(), stderr);
    }
    const bool told = write(ends[1], &loading, sizeof loading) == sizeof loading;
    _exit(told && loading.done ? 0 : 1);
  }
  close(ends[1]);
  Loading loading;
  const bool told = read(ends[0], &loading, sizeof loading) == sizeof loading;
  close(ends[0]);
  waitpid(child, nullptr, 0);
  if (!told || !loading.done) throw Error(ErrorCode::kUnavailable, format("{} was not loaded", options.model));
  return loading;
}

// One line of the result.
struct Row {
  const char* from;
  double read_rate = 0;  // bytes per second, into one buffer
  double copy_rate = 0;  // into new memory; 0: not measured
  Loading loading;
};

void print_row(const Row& row, std::int64_t stored_bytes, bool json) {
  const double stored = static_cast<double>(stored_bytes), load_rate = stored / row.loading.seconds;
  const double memory = static_cast<double>(row.loading.peak_bytes) / stored;
  if (json) {
    OrderedJson line{{"from", row.from},
                     {"stored_bytes", stored_bytes},
                     {"read_bytes_per_second", row.read_rate},
                     {"load_seconds", row.loading.seconds},
                     {"load_bytes_per_second", load_rate},
                     {"fraction_of_reading", load_rate / row.read_rate},
                     {"peak_resident_bytes", row.loading.peak_bytes},
                     {"peak_over_stored", memory}};
    if (row.copy_rate > 0) line["fraction_of_reading_to_new_memory"] = load_rate / row.copy_rate;
    std::fputs((line.dump() + "\n").c_str(), stdout);
  } else {
    const auto part = [&](double rate) {
      return rate > 0 ? format("{:>6.2f} GB/s ({:>3.0f} %)", rate * 1e-9, 100 * load_rate / rate) : "";
    };
    std::fputs(
        format("{:<7} {:>8.3f} s {:>7.2f} GB/s {:>20} {:>20} {:>9} MiB {:>7.3f}\n", row.from, row.loading.seconds,
               load_rate * 1e-9, part(row.read_rate), part(row.copy_rate), row.loading.peak_bytes >> 20, memory)
            .c_str(),
        stdout);
  }
  std::fflush(stdout);
}

double read_rate(const std::vector<std::string>& files, std::int32_t threads, ReadTo to = ReadTo::kOneBuffer) {
  const ReadResult result = read_files(files, threads, to);
  return static_cast<double>(result.bytes) / result.seconds;
}

// Whether the kernel forgot them. A little stays at the ends of what it read ahead.
bool forget(const std::vector<std::string>& files) {
  drop_from_cache(files);
  return cached_fraction(files) < 0.02;
}

int run(Options& options) {
  const std::unique_ptr<Checkpoint> checkpoint = Checkpoint::open(model_path(options.engine));
  EngineConfig& config = options.engine.config;
  if (config.kv_tokens == 0 && config.context_tokens_max == 0)  // no more than a request needs: memory is for weights
    config.kv_tokens = config.context_tokens_max =
        std::min<std::int64_t>(read_config(*checkpoint).context_tokens_max, 1024);
  const std::vector<std::string> files = weight_files(*checkpoint);
  const auto stored = static_cast<std::int64_t>(checkpoint->tensor_bytes());
  const std::int32_t threads = config.threads > 0 ? config.threads : usable_cores();
  if (!options.json)
    std::fputs(format("{:<7} {:>10} {:>12} {:>20} {:>20} {:>13} {:>7}\n", "from", "loaded in", "at", "files read at",
                      "to new memory at", "peak resident", "÷ stored")
                   .c_str(),
               stdout);
  for (std::int32_t i = 0; i < options.repeats; ++i) {
    if (forget(files)) {
      Row row{"disk", read_rate(files, threads), 0, {}};
      forget(files);
      row.loading = load_apart(options.engine);
      print_row(row, stored, options.json);
    } else if (i == 0 && !options.engine.quiet) {
      std::fputs("the files stay in memory whatever the kernel is asked: not read from a disk\n", stderr);
    }
    read_files(files, threads);  // all of it is in memory now
    Row row{"memory", read_rate(files, threads), read_rate(files, threads, ReadTo::kNewMemory), {}};
    row.loading = load_apart(options.engine);
    print_row(row, stored, options.json);
  }
  return 0;
}

}  // namespace

Action declare_bench_load(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  declare_engine_options(app, options->engine);
  app.add_option("--repeats", options->repeats, "of all measurements")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_flag("--json", options->json, "one JSON object a line");
  return [options] { return run(*options); };
}

}  // namespace tandem
