// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem attention, tandem ffn: one worker of a deployment as a process. All that it does is roles/role.h.
#include "roles/role.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "base/format.h"
#include "cli/command.h"
#include "cli/deployment_options.h"
#include "cli/end_signals.h"
#include "session/constraint_maker.h"

namespace tandem {

namespace {

struct Options {
  DeploymentOptions deployment;
  std::int32_t rank = 0;
};

// Of a worker that ends itself because it is stuck: EX_TEMPFAIL of sysexits.h, to be started again.
constexpr int kStuckStatus = 75;

int run(RoleKind kind, const Options& options) {
  const EndSignals signals;
  const Deployment deployment = read_deployment(options.deployment);
  ConstraintMaker constraints(deployment.model);
  try {
    run_role(kind, deployment,
             {.rank = options.rank,
              .insecure = options.deployment.insecure,
              .stop = signals.fd(),
              .say = [](const std::string& line) { std::fputs(format("{}\n", line).c_str(), stderr); },
              .make_constraint = [&](const ConstraintRecipe& recipe) { return constraints.make(recipe); }});
  } catch (const StuckWorker& stuck) {
    std::fputs(format("tandem: {}; the process ends itself\n", stuck.message()).c_str(), stderr);
    std::_Exit(kStuckStatus);
  }
  return 0;
}

Action declare_role(CLI::App& app, RoleKind kind) {
  const auto options = std::make_shared<Options>();
  app.add_option("file", options->deployment.file, "the deployment file")->required();
  app.add_option("--rank", options->rank, "of this worker in it")->required();
  declare_link_options(app, options->deployment);
  return [kind, options] { return run(kind, *options); };
}

}  // namespace

Action declare_attention(CLI::App& app) {
  return declare_role(app, RoleKind::kAttention);
}

Action declare_ffn(CLI::App& app) {
  return declare_role(app, RoleKind::kFfn);
}

}  // namespace tandem
