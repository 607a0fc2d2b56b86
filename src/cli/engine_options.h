// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The options of every command that starts an engine, and the start itself: progress while weights are loaded, then
// what was chosen, on standard error.
#pragma once

#include <memory>
#include <string>

#include "cli/deployment_options.h"
#include "deploy/deployment.h"
#include "engine/engine.h"
#include "engine/worker/trace.h"

namespace CLI {
class App;
}

namespace tandem {

struct EngineOptions {
  EngineConfig config;
  std::string model;   // path
  std::string layout;  // or "auto"; empty: 1A1F, on cuda local
  std::string kv_dtype = "bf16";
  std::string activations = "f32";
  std::string trace_file;        // empty: no trace
  DeploymentOptions deployment;  // its workers run as processes; without a file they are threads of this one
  bool quiet = false;
};

// --model too. options must live until the command line has been read.
void declare_engine_options(CLI::App& app, EngineOptions& options);

// What --model names, or without it the deployment file. Throws UsageError when it is missing: asked for late, so that
// a misspelt option is told as such.
std::string model_path(const EngineOptions& options);

// The configuration that the options say; the layout of "auto" is left local.
EngineConfig engine_config(const EngineOptions& options);

// An engine and what must outlive it.
class RunningEngine {
 public:
  // Throws Error.
  RunningEngine(const Checkpoint& checkpoint, const EngineOptions& options);

  Engine& operator*() { return *engine_; }
  Engine* operator->() { return engine_.get(); }
  double load_seconds() const { return load_seconds_; }
  // Stops the engine and writes the trace. Throws Error when that cannot be.
  void finish();

 private:
  void start_workers(const Checkpoint& checkpoint, const EngineOptions& options);
  void connect(const Checkpoint& checkpoint, const EngineOptions& options);

  std::string trace_file_;
  std::unique_ptr<Trace> trace_;
  std::unique_ptr<Deployment> deployment_;
  std::unique_ptr<Engine> engine_;
  double load_seconds_ = 0;
};

// The sizes of a running engine, chosen and given, one line each.
std::string describe(const Engine& engine);

}  // namespace tandem
