// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// SIGINT and SIGTERM as something to wait for beside other things.
#pragma once

#include "roles/control_connection.h"

namespace tandem {

// From its making on the two signals are held back, and the descriptor is readable while one waits. Before any thread
// is started.
class EndSignals {
 public:
  EndSignals();
  int fd() const { return fd_.get(); }
  void take() const;  // the next one ends the program at once

 private:
  Descriptor fd_;
};

// Whether one of them waits, for who holds them back in another way.
bool end_signal_waits();

}  // namespace tandem
