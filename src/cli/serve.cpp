// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem serve: the command line around the server. Every flag also has an environment variable and a place in the TOML
// file; the flag wins over the variable, the variable over the file, and a key of the file that is no flag is an error.
#include "serve/serve.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "base/format.h"
#include "cli/command.h"
#include "cli/engine_options.h"
#include "serve/reference.h"

namespace tandem {

namespace {

struct Options {
  EngineOptions engine;
  ServeSettings serve;
};

void declare_setting(CLI::App& app, const SettingRow& row, ServeSettings& settings) {
  const std::string flag = format("--{}", row.name), doc(row.doc);
  const char* group = row.limit ? "Limits of what clients send" : "Server";
  std::visit(
      [&](auto* place) {
        using Value = std::remove_pointer_t<decltype(place)>;
        if constexpr (std::is_same_v<Value, bool>) {
          app.add_flag(flag, *place, doc)->group(group);
        } else {
          CLI::Option* option = app.add_option(flag, *place, doc)->group(group);
          if constexpr (std::is_same_v<Value, std::vector<std::string>>) option->delimiter(',');
          if constexpr (std::is_same_v<Value, std::int64_t>)
            option->check(CLI::Range(row.min, row.max))->capture_default_str();
        }
      },
      row.place(settings));
}

void name_environment(CLI::App& app) {
  for (CLI::Option* option : app.get_options())
    if (!option->get_lnames().empty() && option->get_lnames().front() != "help")
      option->envname(environment_name(option->get_lnames().front()));
}

// What the file says counts where neither a flag nor a variable does.
void read_config(CLI::App& app, const std::string& path) {
  for (const CLI::ConfigItem& item : CLI::ConfigTOML().from_file(path)) {
    CLI::Option* option = item.parents.empty() ? app.get_option_no_throw("--" + item.name) : nullptr;
    if (!option || item.name == "config" || item.name == "help" || item.name == "reference")
      throw Error(ErrorCode::kInvalidArgument, format("{}: {} is no setting of tandem serve", path, item.fullname()));
    if (option->count() > 0) continue;
    if (option->get_expected_min() == 0)
      option->add_result(option->get_flag_value(item.name, item.inputs.empty() ? "true" : item.inputs.front()));
    else
      option->add_result(item.inputs);
  }
}

// The second signal does not wait for anything, not even for what this program would still tidy up.
void leave_on_next_signal() {
  std::thread([] {
    while (!wait_for_end_signal(1000)) {
    }
    std::_Exit(130);
  }).detach();
}

// A deployment file says where its front listens; a flag or a variable says it better.
void take_front_address(const CLI::App& app, Options& options) {
  if (options.engine.deployment.file.empty()) return;
  const DeploymentFront front = read_deployment(options.engine.deployment.file).front;
  if (app.get_option("--host")->count() == 0) options.serve.http.host = front.host;
  if (app.get_option("--port")->count() == 0) options.serve.http.port = front.port;
}

int run(const CLI::App& app, Options& options) {
  take_front_address(app, options);
  finish_settings(options.serve);
  hold_end_signals();
  const OpenModel model = open_model(model_path(options.engine));
  RunningEngine engine(*model.checkpoint, options.engine);
  {
    TandemServer server(*engine, model, options.serve);
    if (!options.engine.quiet)
      std::fputs(format("serving   {} at {}://{}:{}/v1{}\n", server.model_name(),
                        options.serve.http.tls_certificate.empty() ? "http" : "https", options.serve.http.host,
                        server.port(), options.serve.api_keys.empty() ? "" : ", API key needed")
                     .c_str(),
                 stderr);
    while (!wait_for_end_signal(1000)) {
    }
    leave_on_next_signal();
    server.drain();
    if (!options.engine.quiet) std::fputs("stopping  when the answers under way have ended\n", stderr);
    if (!server.wait_drained())
      std::fputs("tandem: answers were still under way; they are cut off (--drain-ms-max)\n", stderr);
  }
  engine.finish();
  return 0;
}

}  // namespace

Action declare_serve(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  // First, because values are taken in the order in which options are declared.
  app.add_option_function<std::string>(
      "--config", [&app](const std::string& path) { read_config(app, path); },
      "TOML file with any of these flags as keys");
  declare_engine_options(app, options->engine);
  app.add_option("file", options->engine.deployment.file, "a deployment file, as for --deployment");
  for (const SettingRow& row : setting_rows()) declare_setting(app, row, options->serve);
  app.preparse_callback([&app](std::size_t) { name_environment(app); });  // other commands do not look at it
  app.add_flag_callback(
      "--reference",
      [] {
        std::fputs(serving_reference().c_str(), stdout);
        throw CLI::Success();
      },
      "print routes, fields, settings and metrics as Markdown, and do nothing else");
  return [&app, options] { return run(app, *options); };
}

}  // namespace tandem
