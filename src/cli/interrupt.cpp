// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "base/errno_text.h"
#include "base/error.h"

namespace tandem {

namespace {

int pipe_ends[2] = {-1, -1};  // a signal handler reaches globals only
struct sigaction previous_action;

void on_interrupt(int) {
  const int saved = errno;
  [[maybe_unused]] const ssize_t written = write(pipe_ends[1], "!", 1);  // a full pipe says it already
  errno = saved;
}

}  // namespace

InterruptWatch::InterruptWatch() {
  TANDEM_CHECK(pipe_ends[0] < 0, "one watch at a time");
  if (pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK) != 0)
    throw Error(ErrorCode::kOutOfResources, "cannot make a pipe: " + errno_text(errno));
  struct sigaction action{};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, &previous_action);
}

InterruptWatch::~InterruptWatch() {
  sigaction(SIGINT, &previous_action, nullptr);
  for (int& end : pipe_ends) {
    close(end);
    end = -1;
  }
}

bool InterruptWatch::take() {
  bool any = false;
  for (char bytes[64]; read(pipe_ends[0], bytes, sizeof bytes) > 0;) any = true;
  return any;
}

int InterruptWatch::fd() const {
  return pipe_ends[0];
}

}  // namespace tandem
