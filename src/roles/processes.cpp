// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/processes.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/clock.h"
#include "base/errno_text.h"
#include "base/format.h"

namespace tandem {
namespace {

constexpr std::size_t kLineBytesMax = 4096;  // a longer one is told in pieces

// In the child, between fork and exec: nothing but system calls.
[[noreturn]] void become(const std::vector<char*>& arguments, int output, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(127);  // it ended before the line above
  sigset_t none;
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, nullptr);
  setpgid(0, 0);  // Ctrl-C is for the parent, which stops its children in order
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  execv(arguments.front(), arguments.data());
  _exit(127);
}

std::string how_it_ended(pid_t process, int status) {
  if (WIFSIGNALED(status)) {
    const char* words = sigdescr_np(WTERMSIG(status));
    return format("process {} was ended by signal {} ({})", process, WTERMSIG(status), words ? words : "unknown");
  }
  return format("process {} has ended with status {}", process, WEXITSTATUS(status));
}

}  // namespace

Processes::~Processes() {
  for (const Child& child : children_) {
    kill(child.process, SIGKILL);
    waitpid(child.process, nullptr, 0);
  }
}

void Processes::start(const std::string& name, const std::vector<std::string>& arguments) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0)
    throw Error(ErrorCode::kOutOfResources, format("cannot make a pipe for {}: {}", name, errno_text(errno)));
  Descriptor reading(ends[0]), writing(ends[1]);
  fcntl(reading.get(), F_SETFL, O_NONBLOCK);
  std::vector<char*> pointers;
  pointers.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  const pid_t parent = getpid(), process = fork();
  if (process == 0) become(pointers, writing.get(), parent);
  if (process < 0) throw Error(ErrorCode::kOutOfResources, format("cannot start {}: {}", name, errno_text(errno)));
  children_.push_back({name, process, std::move(reading), {}});
}

void Processes::read_lines(Child& child, std::vector<Event>& events) {
  std::array<char, kLineBytesMax> bytes;
  ssize_t count = 0;
  while ((count = read(child.output.get(), bytes.data(), bytes.size())) > 0) {
    child.text.append(bytes.data(), static_cast<std::size_t>(count));
    for (std::size_t end; (end = child.text.find_first_of("\n\r")) != std::string::npos ||
                          (child.text.size() > kLineBytesMax && (end = kLineBytesMax));) {
      if (end > 0) events.push_back({.name = child.name, .line = child.text.substr(0, end)});
      child.text.erase(0, end + 1);
    }
  }
  if (count == 0) child.output.reset();
}

bool Processes::reap(Child& child, std::vector<Event>& events) {
  int status = 0;
  if (waitpid(child.process, &status, WNOHANG) != child.process) return false;
  if (child.output) read_lines(child, events);  // last words
  if (!child.text.empty()) events.push_back({.name = child.name, .line = child.text});
  const bool failed = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
  events.push_back({.name = child.name, .line = how_it_ended(child.process, status), .ended = true, .failed = failed});
  return true;
}

std::vector<Processes::Event> Processes::wait(int stop, int ms) {
  std::vector<pollfd> waited{{stop, POLLIN, 0}};
  for (const Child& child : children_) waited.push_back({child.output.get(), POLLIN, 0});
  // A child whose output is closed is only seen to end by asking.
  const bool silent = std::ranges::any_of(children_, [](const Child& child) { return !child.output; });
  constexpr int kAskMs = 20;
  poll(waited.data(), waited.size(), silent ? std::min(ms, kAskMs) : ms);
  std::vector<Event> events;
  for (Child& child : children_)
    if (child.output) read_lines(child, events);
  std::erase_if(children_, [&](Child& child) { return reap(child, events); });
  return events;
}

std::vector<Processes::Event> Processes::stop(int ms) {
  for (const Child& child : children_) kill(child.process, SIGTERM);
  const RealClock clock;
  const Nanoseconds end = clock.now() + ms * kMillisecond;
  std::vector<Event> all;
  bool killed = false;
  while (!children_.empty()) {
    if (!killed && clock.now() >= end) {
      killed = true;
      for (const Child& child : children_) kill(child.process, SIGKILL);
    }
    std::vector<Event> events = wait(-1, 20);
    all.insert(all.end(), std::make_move_iterator(events.begin()), std::make_move_iterator(events.end()));
  }
  return all;
}

pid_t Processes::process(const std::string& name) const {
  const auto found = std::ranges::find(children_, name, &Child::name);
  return found == children_.end() ? 0 : found->process;
}

}  // namespace tandem
