// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Ctrl-C as something to ask about instead of the end of the program: a flag for loops, and a file descriptor for
// poll().
#pragma once

namespace tandem {

// While one exists, SIGINT sets the flag. At most one at a time.
class InterruptWatch {
 public:
  InterruptWatch();
  ~InterruptWatch();
  InterruptWatch(const InterruptWatch&) = delete;
  InterruptWatch& operator=(const InterruptWatch&) = delete;

  // Whether one came since the last call.
  bool take();
  // Readable while one has come that take() has not told.
  int fd() const;
};

}  // namespace tandem
