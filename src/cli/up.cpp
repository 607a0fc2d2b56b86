// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem up: a whole deployment on this machine, each worker a process of its own and the front, a server, one too.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <memory>
#include <set>

#include "base/format.h"
#include "cli/command.h"
#include "cli/deployment_options.h"
#include "cli/end_signals.h"
#include "roles/deployment_engine.h"
#include "roles/processes.h"

namespace tandem {

namespace {

constexpr int kStopMs = 30'000;  // answers under way, then the rest
constexpr int kWaitMs = 1'000;
constexpr std::int32_t kRestartsMax = 5;  // of one worker that was not ready in between
constexpr const char* kFront = "front";

struct Options {
  DeploymentOptions deployment;
  bool workers_only = false;
  bool restart = false;
};

std::string own_program() {
  std::string path(4096, '\0');
  const ssize_t length = readlink("/proc/self/exe", path.data(), path.size());
  if (length <= 0) throw Error(ErrorCode::kUnsupported, "cannot tell this program's path (/proc/self/exe)");
  path.resize(static_cast<std::size_t>(length));
  return path;
}

class Up {
 public:
  Up(const Deployment& deployment, const Options& options) : deployment_(deployment), options_(options) {
    const std::string program = own_program();
    const auto attention = static_cast<std::int32_t>(deployment.attention.size());
    const auto workers = static_cast<std::int32_t>(deployment.attention.size() + deployment.ffn.size());
    for (std::int32_t rank = 0; rank < workers; ++rank) {
      std::vector<std::string> command{program, rank < attention ? "attention" : "ffn", options.deployment.file,
                                       "--rank", format("{}", rank)};
      add_link_options(command);
      commands_[worker_name(deployment, rank)] = command;
    }
    if (options.workers_only) return;
    std::vector<std::string> command{program,
                                     "serve",
                                     options.deployment.file,
                                     "--host",
                                     deployment.front.host,
                                     "--port",
                                     format("{}", deployment.front.port)};
    add_link_options(command);
    commands_[kFront] = command;
  }

  int run() {
    const EndSignals signals;
    for (const auto& [name, command] : commands_) processes_.start(name, command);
    int status = 0;
    while (status == 0 && !signalled(signals)) {
      for (const Processes::Event& event : processes_.wait(signals.fd(), kWaitMs)) {
        tell(event);
        if (event.ended && !goes_on_without(event)) status = 1;
      }
    }
    say(format("stopping  {} processes", processes_.running()));
    for (const Processes::Event& event : processes_.stop(kStopMs)) tell(event);
    return status;
  }

 private:
  void add_link_options(std::vector<std::string>& command) const {
    if (options_.deployment.insecure) command.push_back("--insecure");
    if (options_.deployment.encrypt) command.push_back("--encrypt");
  }

  static void say(const std::string& line) { std::fputs(format("up    | {}\n", line).c_str(), stderr); }

  static bool signalled(const EndSignals& signals) {
    if (!end_signal_waits()) return false;
    signals.take();
    return true;
  }

  void tell(const Processes::Event& event) {
    if (event.ended) return say(format("ended     {}: {}", event.name, event.line));
    std::fputs(format("{:<5} | {}\n", event.name, event.line).c_str(), stderr);
    if (!event.line.starts_with("ready ")) return;
    restarts_[event.name] = 0;
    ready_.insert(event.name);
    const std::size_t workers = commands_.size() - commands_.count(kFront);
    if (ready_.size() == workers) say(format("ready     all {} workers", workers));
  }

  // A worker that is started again finds its way back; the front with its clients does not.
  bool goes_on_without(const Processes::Event& event) {
    ready_.erase(event.name);
    if (!options_.restart || event.name == kFront || ++restarts_[event.name] > kRestartsMax) return false;
    say(format("starting  {} again", event.name));
    processes_.start(event.name, commands_[event.name]);
    return true;
  }

  const Deployment& deployment_;
  const Options& options_;
  std::map<std::string, std::vector<std::string>> commands_;
  std::map<std::string, std::int32_t> restarts_;
  std::set<std::string> ready_;
  Processes processes_;
};

int run(const Options& options) {
  const Deployment deployment = read_deployment(options.deployment);
  check_supported(deployment, options.deployment.insecure);
  return Up(deployment, options).run();
}

}  // namespace

Action declare_up(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  app.add_option("file", options->deployment.file, "the deployment file")->required();
  app.add_flag("--workers-only", options->workers_only, "no server: other commands with --deployment are the front");
  app.add_flag("--restart", options->restart, "start a worker that ends again; streams wait for it and go on");
  declare_link_options(app, options->deployment);
  return [options] { return run(*options); };
}

}  // namespace tandem
