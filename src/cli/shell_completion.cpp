// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/shell_completion.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "base/format.h"
#include "cli/command.h"

namespace tandem {

namespace {

CompletionOption option_of(const CLI::Option& option) {
  CompletionOption known{
      .names = {}, .description = option.get_description(), .takes_value = option.get_items_expected_max() > 0};
  for (const std::string& name : option.get_snames()) known.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) known.names.push_back("--" + name);
  return known;
}

void collect(const CLI::App& app, const std::string& path, std::vector<CompletionCommand>& commands) {
  const std::size_t place = commands.size();
  commands.push_back({.path = path, .description = app.get_description(), .children = {}, .options = {}});
  for (const CLI::Option* option : app.get_options())
    if (option->nonpositional()) commands[place].options.push_back(option_of(*option));
  for (const CLI::App* child : app.get_subcommands([](const CLI::App*) { return true; })) {
    commands[place].children.push_back(child->get_name());
    collect(*child, path.empty() ? child->get_name() : path + " " + child->get_name(), commands);
  }
}

// Inside single quotes of every shell here.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'')
      out += "'\\''";
    else if (c == '\n')
      out += ' ';
    else
      out += c;
  }
  return out + "'";
}

std::string names_of(const CompletionCommand& command, bool with_value_only) {
  std::vector<std::string> names;
  for (const CompletionOption& option : command.options)
    if (!with_value_only || option.takes_value) names.insert(names.end(), option.names.begin(), option.names.end());
  return format("{}", join(names, " "));
}

const CompletionCommand* child_of(const std::vector<CompletionCommand>& commands, const CompletionCommand& parent,
                                  const std::string& name) {
  const std::string path = parent.path.empty() ? name : parent.path + " " + name;
  const auto found = std::ranges::find(commands, path, &CompletionCommand::path);
  return found == commands.end() ? nullptr : &*found;
}

// Bash and zsh walk the line in the same way: path holds the command so far, an option with a value hides the next
// word.
std::string walk(const std::vector<CompletionCommand>& commands) {
  std::string text = "  case $path in\n";
  for (const CompletionCommand& command : commands)
    text += format("    {}) children={} options={} valued={} ;;\n", quoted(command.path),
                   quoted(format("{}", join(command.children, " "))), quoted(names_of(command, false)),
                   quoted(names_of(command, true)));
  return text + "  esac\n";
}

}  // namespace

std::vector<CompletionCommand> completion_commands(const CLI::App& program) {
  std::vector<CompletionCommand> commands;
  collect(program, "", commands);
  return commands;
}

std::string bash_completion(const std::vector<CompletionCommand>& commands) {
  return "# Completion of tandem for bash: source this file, or put it into "
         "~/.local/share/bash-completion/completions/tandem\n"
         "_tandem_words() {\n" +
         walk(commands) +
         R"(}
_tandem() {
  local path='' children options valued word i current=${COMP_WORDS[COMP_CWORD]} previous=''
  _tandem_words
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    [[ " $children " == *" $word "* ]] || continue
    path=${path:+$path }$word
    _tandem_words
  done
  ((COMP_CWORD > 1)) && previous=${COMP_WORDS[COMP_CWORD-1]}
  COMPREPLY=()
  if [[ $previous == -* && " $valued " == *" $previous "* ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  elif [[ $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
  elif [[ -n $children ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$children" -- "$current")
  else
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  fi
}
complete -o filenames -F _tandem tandem
)";
}

std::string zsh_completion(const std::vector<CompletionCommand>& commands) {
  // _describe wants NAME:DESCRIPTION.
  const auto entry = [](const std::string& name, const std::string& description) {
    return "      " + quoted(name + ":" + description) + "\n";
  };
  std::string text =
      "#compdef tandem\n# Completion of tandem for zsh: put this file into a folder of $fpath as _tandem.\n"
      "_tandem_words() {\n  children=() options=() valued=''\n  case $1 in\n";
  for (const CompletionCommand& command : commands) {
    text += format("    {})\n      children=(\n", quoted(command.path));
    for (const std::string& name : command.children) {
      const CompletionCommand* child = child_of(commands, command, name);
      text += entry(name, child ? child->description : "");
    }
    text += "      ) options=(\n";
    for (const CompletionOption& option : command.options)
      for (const std::string& name : option.names) text += entry(name, option.description);
    text += format("      ) valued={} ;;\n", quoted(names_of(command, true)));
  }
  return text + R"(  esac
}
_tandem() {
  local at='' valued word
  local -a children options
  _tandem_words ''
  for word in ${words[2,CURRENT-1]}; do
    (( ${children[(I)$word:*]} )) || continue
    at=${at:+$at }$word
    _tandem_words "$at"
  done
  if [[ $CURRENT -gt 2 && ${words[CURRENT-1]} == -* && " $valued " == *" ${words[CURRENT-1]} "* ]]; then
    _files
  elif [[ ${words[CURRENT]} == -* ]]; then
    _describe option options
  elif (( $#children )); then
    _describe command children
  else
    _files
  fi
}
compdef _tandem tandem
)";
}

std::string fish_completion(const std::vector<CompletionCommand>& commands) {
  std::string text =
      "# Completion of tandem for fish: put this file into ~/.config/fish/completions/tandem.fish\n"
      "# Whether the words so far that are no options begin with these, and with no command beyond them.\n"
      "function __tandem_at\n"
      "  set -l words (commandline -opc | string match -v -- '-*')[2..]\n"
      "  set -l count (count $argv)\n"
      "  test $count -eq 0; and begin; test (count $words) -eq 0; return; end\n"
      "  test (count $words) -ge $count; and test \"$words[1..$count]\" = \"$argv\"\n"
      "end\n";
  for (const CompletionCommand& command : commands) {
    const std::string condition = quoted("__tandem_at " + command.path);
    for (const std::string& name : command.children) {
      const CompletionCommand* child = child_of(commands, command, name);
      text += format("complete -c tandem -f -n {} -a {} -d {}\n", condition, quoted(name),
                     quoted(child ? child->description : ""));
    }
    for (const CompletionOption& option : command.options) {
      text += format("complete -c tandem -n {}", condition);
      for (const std::string& name : option.names)
        text += name.starts_with("--") ? format(" -l {}", name.substr(2)) : format(" -s {}", name.substr(1));
      text += format("{} -d {}\n", option.takes_value ? " -r" : "", quoted(option.description));
    }
  }
  return text;
}

Action declare_completion(CLI::App& app) {
  const auto shell = std::make_shared<std::string>();
  app.add_option("shell", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  return [&app, shell] {
    const std::vector<CompletionCommand> commands = completion_commands(*app.get_parent());
    const std::string script = *shell == "bash"  ? bash_completion(commands)
                               : *shell == "zsh" ? zsh_completion(commands)
                                                 : fish_completion(commands);
    std::fputs(script.c_str(), stdout);
    return 0;
  };
}

}  // namespace tandem
