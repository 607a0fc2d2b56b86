// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem plan cost: the price of a decoded token.
#include <CLI/CLI.hpp>

#include "cli/command.h"
#include "cli/plan_options.h"
#include "plan/cost_report.h"

namespace tandem {

namespace {

struct Options {
  std::vector<std::string> models, hardware{"h800", "h20", "a800", "910b"}, contexts{"8K", "32K"};
  std::string accounting = "paper", kv = "fp8", format = "text", output;
};

int run(const Options& options) {
  CostQuestion question{.models = find_shapes(options.models),
                        .hardware = find_all_hardware(options.hardware),
                        .contexts = {},
                        .accounting = {}};
  for (const std::string& context : options.contexts) question.contexts.push_back(parse_tokens(context, "--context"));
  question.accounting.accounting = options.accounting == "paper" ? Accounting::kPaper : Accounting::kOperators;
  question.accounting.precision.kv = options.kv == "fp8" ? DType::kF8E4M3 : DType::kBF16;
  const CostTable table(std::move(question));
  write_output(options.output, options.format == "text"   ? cost_text(table)
                               : options.format == "json" ? cost_json(table)
                               : options.format == "csv"  ? cost_csv(table)
                                                          : cost_svg(table));
  return 0;
}

}  // namespace

Action declare_plan_cost(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  Options& o = *options;
  o.models = shape_names();
  app.add_option("-m,--model", o.models, model_help())->delimiter(',');
  app.add_option("--hardware", o.hardware, hardware_help())->delimiter(',')->capture_default_str();
  app.add_option("--context", o.contexts, "tokens of context, such as 8192 or 8K")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--accounting", o.accounting,
                 "paper: products and attention alone; operators: all that the engine runs")
      ->check(CLI::IsMember({"paper", "operators"}))
      ->capture_default_str();
  app.add_option("--kv", o.kv, "type of caches where the model leaves it open")
      ->check(CLI::IsMember({"fp8", "bf16"}))
      ->capture_default_str();
  app.add_option("--format", o.format, "text, json (an object a line), csv, or svg (a figure)")
      ->check(CLI::IsMember({"text", "json", "csv", "svg"}))
      ->capture_default_str();
  app.add_option("-o,--output", o.output, "a file to write, in place of standard output");
  return [options] { return run(*options); };
}

}  // namespace tandem
