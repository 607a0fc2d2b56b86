// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The program: the table of commands as a command line, and the one place where errors end.
// Exit status: 0 done, 1 an error, 2 a command line that makes no sense.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <new>

#include "base/error.h"
#include "base/format.h"
#include "cli/command.h"
#include "cli/version.h"

namespace tandem {
namespace {

int fail(int status, const std::string& message) {
  std::fputs(format("tandem: {}\n", message).c_str(), stderr);
  return status;
}

// The App of a command: of "bench model" it is "model" below "bench".
CLI::App* add_command(CLI::App& app, const Subcommand& command) {
  const std::string name = command.name;
  const std::size_t space = name.find(' ');
  if (space == std::string::npos) return app.add_subcommand(name, command.summary);
  const std::string parent_name = name.substr(0, space);
  const auto known = app.get_subcommands([&](const CLI::App* sub) { return sub->get_name() == parent_name; });
  CLI::App* parent = known.empty() ? nullptr : known.front();
  if (!parent) {
    parent = app.add_subcommand(parent_name, parent_summary(parent_name.c_str()));
  }
  return parent->add_subcommand(name.substr(space + 1), command.summary);
}

// The names of what was asked for, outermost first.
std::string chosen_name(const CLI::App& app) {
  std::string name = app.get_name();
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    name += " " + at->get_name();
  }
  return name;
}

int run(int argc, char** argv) {
  CLI::App app("Tandem serves large language models with every layer cut into an attention half and an FFN half.",
               "tandem");
  app.set_version_flag("--version", [] { return version_text(); });
  app.footer("tandem COMMAND --help tells more.");
  std::vector<std::pair<CLI::App*, Action>> actions;
  for (const Subcommand& command : commands()) {
    CLI::App* sub = add_command(app, command);
    sub->footer(command.details);
    actions.emplace_back(sub, command.declare(*sub));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success))
      return app.exit(error);  // --help, --version
    return fail(2, format("{} (see {} --help)", error.what(), chosen_name(app)));
  }
  for (const auto& [sub, action] : actions)
    if (sub->parsed()) return action();
  return fail(2, format("a command is missing (see {} --help)", chosen_name(app)));
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  try {
    return tandem::run(argc, argv);
  } catch (const tandem::UsageError& error) {
    return tandem::fail(2, error.message());
  } catch (const tandem::Error& error) {
    return tandem::fail(1, error.message());
  } catch (const std::bad_alloc&) {
    return tandem::fail(1, "out of memory");
  } catch (const std::exception& error) {
    return tandem::fail(1, error.what());
  }
}
