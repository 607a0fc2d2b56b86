// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/cli/program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>

namespace tandem {

namespace {

std::vector<char*> argument_pointers(const std::vector<std::string>& arguments) {
  std::vector<char*> pointers{const_cast<char*>(TANDEM_PROGRAM)};
  for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

int exit_status(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Appends what can be read; false at the end.
bool drain(int fd, std::string& text) {
  std::array<char, 4096> bytes;
  const ssize_t count = read(fd, bytes.data(), bytes.size());
  if (count > 0) text.append(bytes.data(), static_cast<std::size_t>(count));
  return count > 0;
}

}  // namespace

ProgramResult run_program(const std::vector<std::string>& arguments, const std::string& input) {
  // Input from a file: nobody has to write while the program writes.
  std::string input_path = "/tmp/tandem_test_XXXXXX";
  const int input_fd = mkstemp(input_path.data());
  unlink(input_path.c_str());
  [[maybe_unused]] const ssize_t written = write(input_fd, input.data(), input.size());
  lseek(input_fd, 0, SEEK_SET);
  int out[2], err[2];
  if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) return {};
  const std::vector<char*> pointers = argument_pointers(arguments);
  const pid_t child = fork();
  if (child == 0) {
    dup2(input_fd, STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    dup2(err[1], STDERR_FILENO);
    execv(TANDEM_PROGRAM, pointers.data());
    _exit(127);
  }
  close(input_fd);
  close(out[1]);
  close(err[1]);
  ProgramResult result;
  std::array<pollfd, 2> streams{{{out[0], POLLIN, 0}, {err[0], POLLIN, 0}}};
  while (streams[0].fd >= 0 || streams[1].fd >= 0) {
    poll(streams.data(), streams.size(), -1);
    for (pollfd& stream : streams)
      if (stream.fd >= 0 && stream.revents != 0 && !drain(stream.fd, stream.fd == out[0] ? result.out : result.err))
        stream.fd = -1;
  }
  close(out[0]);
  close(err[0]);
  result.status = exit_status(child);
  return result;
}

ProgramResult run_at_terminal(const std::vector<std::string>& arguments, const std::vector<Exchange>& exchanges) {
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  grantpt(terminal);
  unlockpt(terminal);
  const std::string name = ptsname(terminal);
  const std::vector<char*> pointers = argument_pointers(arguments);
  const pid_t child = fork();
  if (child == 0) {
    setsid();
    const int side = open(name.c_str(), O_RDWR);
    ioctl(side, TIOCSCTTY, 0);
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(side, fd);
    execv(TANDEM_PROGRAM, pointers.data());
    _exit(127);
  }
  ProgramResult result;
  std::size_t seen = 0, next = 0;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (true) {
    if (std::chrono::steady_clock::now() > deadline) kill(child, SIGKILL);
    pollfd waited{terminal, POLLIN, 0};
    if (poll(&waited, 1, 100) > 0 && !drain(terminal, result.out)) break;
    if (next == exchanges.size()) continue;
    const std::size_t found = result.out.find(exchanges[next].shown, seen);
    if (found == std::string::npos) continue;
    seen = found + exchanges[next].shown.size();
    // A person needs a moment; and the editor sets the terminal up after its prompt is drawn.
    usleep(100'000);
    const std::string& typed = exchanges[next++].typed;
    [[maybe_unused]] const ssize_t written = write(terminal, typed.data(), typed.size());
  }
  close(terminal);
  result.status = exit_status(child);
  return result;
}

}  // namespace tandem
