// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A control connection: whole messages over TCP, without waiting. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "roles/control_message.h"

namespace tandem {

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release();
  void reset();

 private:
  int fd_;
};

// Wakes a poll() of another thread.
class WakePipe {
 public:
  WakePipe();
  void wake() const;   // any thread
  void drain() const;  // the thread that polls
  int fd() const { return event_.get(); }

 private:
  Descriptor event_;
};

// Listens on one address of this machine. Throws Error: kInvalidArgument for a host without an address, kUnavailable
// for a port that is taken.
Descriptor listen_on(const std::string& host, std::int32_t port);
// Begins to connect; the descriptor becomes writable when it has, or has not. Empty, with why, when it cannot begin.
Descriptor begin_connect(const std::string& host, std::int32_t port, std::string& why);
// Of a descriptor from begin_connect that has become writable: empty, or why there is no connection.
std::string connect_failure(const Descriptor& socket);
// The next connection that waits; empty: none.
Descriptor accept_from(const Descriptor& listener);

class ControlConnection {
 public:
  explicit ControlConnection(Descriptor socket) : socket_(std::move(socket)) {}

  int fd() const { return socket_.get(); }
  bool wants_to_write() const { return written_ < out_.size(); }
  // Queues a message. What the peer does not read is kept up to a limit; beyond it the connection fails.
  void post(const ControlMessage& message);
  // Writes and reads what can be without waiting, and appends what came. An error: the connection is at its end, which
  // for a peer that closed it says so.
  Status move(std::vector<ControlMessage>& came);

 private:
  Status write_some();
  Status read_some(bool& ended);
  Status take_messages(std::vector<ControlMessage>& came);

  Descriptor socket_;
  std::vector<std::byte> in_, out_;
  std::size_t written_ = 0;  // of out_
  bool overflown_ = false;
};

}  // namespace tandem
