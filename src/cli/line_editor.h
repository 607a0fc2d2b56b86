// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A line typed at a terminal, with editing and a history that outlives the program. The one place that knows libedit.
#pragma once

#include <memory>
#include <string>

#include "cli/interrupt.h"

namespace tandem {

class LineEditor {
 public:
  enum class Outcome { kLine, kInterrupted, kEnd };

  // history_file may be empty. The watch must outlive the editor.
  LineEditor(std::string prompt, std::string history_file, InterruptWatch& interrupts);
  ~LineEditor();  // writes the history

  // kInterrupted gives what had been typed.
  Outcome read(std::string& line);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// $XDG_STATE_HOME/tandem/name, its folder made; empty when there is no home to have it in.
std::string state_file(const std::string& name);

}  // namespace tandem
