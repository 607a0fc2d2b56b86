// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Scripts that teach a shell the words of this program, made from the same declarations as --help.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace tandem {

struct CompletionOption {
  std::vector<std::string> names;  // with their dashes
  std::string description;
  bool takes_value = false;
};

// A command and what may follow it.
struct CompletionCommand {
  std::string path;  // "" for the program itself, "bench model" for a command below another
  std::string description;
  std::vector<std::string> children;  // names
  std::vector<CompletionOption> options;
};

// The program itself first, then every command in the order of the table.
std::vector<CompletionCommand> completion_commands(const CLI::App& program);

std::string bash_completion(const std::vector<CompletionCommand>& commands);
std::string zsh_completion(const std::vector<CompletionCommand>& commands);
std::string fish_completion(const std::vector<CompletionCommand>& commands);

}  // namespace tandem
