// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Looks names up without waiting longer than one wants to: the system's look-up cannot be told when to give up, so it
// runs on a thread of its own, one name after the other.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "serve/remote/ip_address.h"

namespace tandem {

class LookUps {
 public:
  using LookUp = std::function<std::vector<IpAddress>(const std::string& name)>;
  explicit LookUps(LookUp look_up);
  ~LookUps();  // waits for the name that is being looked up

  // From now on nothing is known.
  void stop();
  // None: not known in time. Callable from any thread.
  std::optional<std::vector<IpAddress>> find(const std::string& name, std::chrono::steady_clock::time_point end);

 private:
  struct Question {
    std::string name;
    std::chrono::steady_clock::time_point end;
    std::optional<std::vector<IpAddress>> answer;
  };
  void run();

  const LookUp look_up_;
  std::mutex mutex_;
  std::condition_variable asked_, answered_;
  std::deque<std::shared_ptr<Question>> questions_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace tandem
