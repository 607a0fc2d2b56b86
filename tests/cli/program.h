// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The program as a user runs it: arguments and standard input in, two streams and a status out; or at a terminal.
#pragma once

#include <string>
#include <vector>

namespace tandem {

struct ProgramResult {
  int status = -1;  // -1: it did not exit by itself
  std::string out, err;
};

ProgramResult run_program(const std::vector<std::string>& arguments, const std::string& input = "");

// What is typed once what was expected has been shown.
struct Exchange {
  std::string shown;
  std::string typed;
};

// Runs at a terminal of its own. out has all that the terminal showed; ends the program after a minute.
ProgramResult run_at_terminal(const std::vector<std::string>& arguments, const std::vector<Exchange>& exchanges);

}  // namespace tandem
