// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Child processes of this one: started, heard line by line, and stopped together. They end with this process, however
// it ends. One thread.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "roles/control_connection.h"

namespace tandem {

class Processes {
 public:
  Processes() = default;
  ~Processes();  // kills what still runs
  Processes(const Processes&) = delete;
  Processes& operator=(const Processes&) = delete;

  // arguments: the program's path first. Throws Error{kOutOfResources}.
  void start(const std::string& name, const std::vector<std::string>& arguments);

  struct Event {
    std::string name;
    std::string line;  // that it wrote, to standard output or error; or, when it has ended, how
    bool ended = false;
    bool failed = false;  // ended otherwise than with status 0
  };
  // What happened since the last call; waits up to ms for something. stop: a descriptor whose readability ends the
  // wait; -1: none.
  std::vector<Event> wait(int stop, int ms);
  // SIGTERM to all; after ms SIGKILL to those that still run. The events are theirs.
  std::vector<Event> stop(int ms);
  std::size_t running() const { return children_.size(); }
  pid_t process(const std::string& name) const;  // 0: it does not run

 private:
  struct Child {
    std::string name;
    pid_t process = 0;
    Descriptor output;
    std::string text;  // of a line that has not ended
  };

  void read_lines(Child& child, std::vector<Event>& events);
  bool reap(Child& child, std::vector<Event>& events);

  std::vector<Child> children_;
};

}  // namespace tandem
