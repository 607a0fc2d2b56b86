// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/deployment_options.h"

#include <CLI/CLI.hpp>

namespace tandem {

void declare_link_options(CLI::App& app, DeploymentOptions& options, const std::string& group) {
  app.add_flag("--insecure", options.insecure,
               "do without [trust] where workers are on other machines: nobody is kept out")
      ->group(group);
  app.add_flag("--encrypt", options.encrypt, "seal what passes between workers, as link.encrypt; say so to all of them")
      ->group(group);
}

Deployment read_deployment(const DeploymentOptions& options) {
  return read_deployment(options.file, {.insecure = options.insecure, .encrypt = options.encrypt});
}

}  // namespace tandem
