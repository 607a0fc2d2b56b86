// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a command line says about the links of a deployment, beside its file.
#pragma once

#include <string>

#include "deploy/deployment.h"

namespace CLI {
class App;
}

namespace tandem {

struct DeploymentOptions {
  std::string file;
  bool insecure = false;  // also where workers are elsewhere and nobody is kept out
  bool encrypt = false;   // as link.encrypt of the file
};

// --insecure and --encrypt. options must live until the command line has been read.
void declare_link_options(CLI::App& app, DeploymentOptions& options, const std::string& group = "OPTIONS");

// With what the options add. Throws Error as read_deployment.
Deployment read_deployment(const DeploymentOptions& options);

}  // namespace tandem
