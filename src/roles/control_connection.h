// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A control channel over TCP, within TLS where the deployment has trust. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "roles/control_channel.h"
#include "roles/control_message.h"
#include "trust/credentials.h"
#include "trust/tls_session.h"

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

class ControlConnection final : public ControlChannel {
 public:
  // tls: none where nobody is asked who he is.
  explicit ControlConnection(Descriptor socket, std::unique_ptr<TlsSession> tls = nullptr);
  // Of a descriptor from begin_connect.
  static std::unique_ptr<ControlConnection> connecting(Descriptor socket, std::unique_ptr<TlsSession> tls);

  int fd() const override { return socket_.get(); }
  short events() const override;
  bool wants_to_write() const { return written_ < out_.size(); }
  std::size_t unsent() const override { return out_.size() - written_ + unsent_.size(); }
  // Until then the peer's messages may have kGreetingBytesMax.
  void allow_long_messages() override { bytes_max_ = kControlBytesMax; }
  // What the peer does not read is kept up to a limit; beyond it the connection fails.
  void post(const ControlMessage& message) override;
  // kPermissionDenied: one of the two does not trust the other.
  Status move(std::vector<ControlMessage>& came) override;

 private:
  bool connected(std::string& why);
  Status write_some();
  Status read_some(bool& ended);
  Status receive(std::span<const std::byte> bytes);
  Status take_messages(std::vector<ControlMessage>& came);
  Status refuse(Status why);

  Descriptor socket_;
  bool connecting_ = false;
  std::unique_ptr<TlsSession> tls_;
  std::size_t bytes_max_ = kGreetingBytesMax;
  std::vector<std::byte> in_;      // the peer's words
  std::vector<std::byte> unsent_;  // our own, while the peer is not known
  std::vector<std::byte> out_;     // for the wire
  std::size_t written_ = 0;        // of out_
  bool spoken_ = false;            // the peer has said a whole message
  bool overflown_ = false;
};

// Reaches workers over TCP.
class TcpDialer final : public ControlDialer {
 public:
  // credentials: none where the deployment has no trust. They outlive this.
  explicit TcpDialer(const Credentials* credentials) : credentials_(credentials) {}
  std::unique_ptr<ControlChannel> dial(const WorkerPlace& place, std::string& why) override;

 private:
  const Credentials* const credentials_;
};

}  // namespace tandem
