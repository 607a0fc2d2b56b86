// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem plan sparsity: how few of its experts a model may use.
#include <CLI/CLI.hpp>

#include "cli/command.h"
#include "cli/plan_options.h"
#include "plan/sparsity.h"

namespace tandem {

namespace {

struct Options {
  std::vector<std::string> models, hardware{"h800", "h20", "a800", "910b"};
  double tpot_ms = 50, network_efficiency = 1;
  std::string format = "text", output;
};

int run(const Options& o) {
  const SparsityQuestion question{.tpot = o.tpot_ms * 1e-3, .network_efficiency = o.network_efficiency};
  const std::vector<ModelShape> models = find_shapes(o.models);
  const std::vector<Hardware> hardware = find_all_hardware(o.hardware);
  write_output(o.output, o.format == "text" ? sparsity_text(models, hardware, question)
                                            : sparsity_json(models, hardware, question));
  return 0;
}

}  // namespace

Action declare_plan_sparsity(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  Options& o = *options;
  o.models = shape_names();
  app.add_option("-m,--model", o.models, model_help())->delimiter(',');
  app.add_option("--hardware", o.hardware, hardware_help())->delimiter(',')->capture_default_str();
  app.add_option("--tpot-ms", o.tpot_ms, "time per token")->capture_default_str();
  app.add_option("--network-efficiency", o.network_efficiency, "of links; 0.8 is what DeepEP reaches of 50 GB/s")
      ->capture_default_str();
  app.add_option("--format", o.format, "text or json")->check(CLI::IsMember({"text", "json"}))->capture_default_str();
  app.add_option("-o,--output", o.output, "a file to write, in place of standard output");
  return [options] { return run(*options); };
}

}  // namespace tandem
