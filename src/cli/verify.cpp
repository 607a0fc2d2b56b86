// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem verify: a checkpoint's recorded expectations, checked on this machine. The verdict is the exit status.
#include "verify/verify.h"

#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/format.h"
#include "cli/command.h"
#include "cli/engine_options.h"

namespace tandem {

namespace {

std::string_view limits_of(const Verdict& verdict) {
  if (verdict.activations != Activations::kF32) return name(verdict.activations);
  return verdict.f32 ? "f32" : "bf16";
}

std::string text_of(const PromptVerdict& v) {
  std::string text = format("{:<16} {:>6} {:>12.3g} {:>10.3g} {:>7}/{:<7} {:>3}/{:<3} {}\n", v.name, v.tokens,
                            v.logits_max_abs, v.logits_rms, v.routes - v.routes_different, v.routes, v.greedy_same,
                            v.greedy_total, v.faults.empty() ? "ok" : "FAILED");
  for (const std::string& fault : v.faults) text += format("                 {}\n", fault);
  return text;
}

OrderedJson json_of(const Verdict& verdict) {
  OrderedJson json;
  json["passed"] = verdict.passed();
  json["limits"] = limits_of(verdict);
  for (const PromptVerdict& v : verdict.prompts)
    json["prompts"].push_back({{"name", v.name},
                               {"tokens", v.tokens},
                               {"logits_max_abs", v.logits_max_abs},
                               {"logits_rms", v.logits_rms},
                               {"routes", v.routes},
                               {"routes_different", v.routes_different},
                               {"greedy_same", v.greedy_same},
                               {"greedy_total", v.greedy_total},
                               {"faults", v.faults}});
  return json;
}

int run(const EngineOptions& options, bool json) {
  if (options.layout == "auto")
    throw Error(ErrorCode::kInvalidArgument, "layout is auto, verify needs one that is named (--layout)");
  const EngineConfig config = engine_config(options);
  const Verdict verdict =
      verify(*Checkpoint::open(options.model), read_expectations(options.model, config.activations), config);
  std::string text;
  if (json) {
    text = json_of(verdict).dump(2) + "\n";
  } else {
    text = format("{:<16} {:>6} {:>12} {:>10} {:>15} {:>7}\n", "prompt", "tokens", "logits max", "rms", "routes",
                  "greedy");
    for (const PromptVerdict& prompt : verdict.prompts) text += text_of(prompt);
    text += format("{} on {}, {}, held to the {} limits\n", verdict.passed() ? "passed" : "FAILED", config.backend,
                   to_string(config.layout), limits_of(verdict));
  }
  std::fputs(text.c_str(), stdout);
  return verdict.passed() ? 0 : 1;
}

}  // namespace

Action declare_verify(CLI::App& app) {
  const auto options = std::make_shared<EngineOptions>();
  const auto json = std::make_shared<bool>(false);
  declare_engine_options(app, *options);
  app.remove_option(app.get_option("--model"));
  app.add_option("path", options->model, "a folder with expected.json beside the weights, or a GGUF file in one")
      ->required();
  app.add_flag("--json", *json, "as one JSON object");
  return [options, json] { return run(*options, *json); };
}

}  // namespace tandem
