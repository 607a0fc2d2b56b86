// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a front and a worker speak through: whole messages to one other process and from it, in order, without waiting.
// Over TCP it is control_connection.h; the simulator has its own, on a network that fails when told to.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "deploy/deployment.h"
#include "roles/control_message.h"

namespace tandem {

// One thread.
class ControlChannel {
 public:
  virtual ~ControlChannel() = default;  // ends it: the other side hears that
  // Queues a message, which waits until there is a connection and the peer is known.
  virtual void post(const ControlMessage& message) = 0;
  // Sends and receives what can be without waiting, and appends what came. An error: the channel is at its end, and
  // why.
  virtual Status move(std::vector<ControlMessage>& came) = 0;
  virtual std::size_t unsent() const = 0;  // bytes that wait to be taken
  // After the greeting.
  virtual void allow_long_messages() = 0;
  // What to poll for until move() can do more.
  virtual int fd() const = 0;
  virtual short events() const = 0;
};

// How a front reaches its workers.
class ControlDialer {
 public:
  virtual ~ControlDialer() = default;
  // Begins a channel to the worker; null, with why, when it cannot begin.
  virtual std::unique_ptr<ControlChannel> dial(const WorkerPlace& place, std::string& why) = 0;
};

}  // namespace tandem
