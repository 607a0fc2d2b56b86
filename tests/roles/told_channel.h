// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A control channel in memory whose other end is the test: what it hears, and when it ends, is told. Like one over TCP
// it sends nothing before move().
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "roles/control_channel.h"

namespace tandem {

// What the test sees of it; outlives it.
struct ToldWire {
  std::vector<ControlMessage> coming;  // that it is to hear
  std::vector<ControlMessage> sent;
  Status end;  // an error: what move() returns, after what was coming
  std::size_t unsent_bytes = 0;
  bool long_messages = false, closed = false;

  template <class Message>
  std::vector<Message> all() const {
    std::vector<Message> found;
    for (const ControlMessage& message : sent)
      if (const auto* one = std::get_if<Message>(&message)) found.push_back(*one);
    return found;
  }
};

class ToldChannel final : public ControlChannel {
 public:
  explicit ToldChannel(std::shared_ptr<ToldWire> wire) : wire_(std::move(wire)) {}
  ~ToldChannel() override { wire_->closed = true; }
  void post(const ControlMessage& message) override { posted_.push_back(message); }
  Status move(std::vector<ControlMessage>& came) override {
    for (ControlMessage& message : std::exchange(posted_, {})) wire_->sent.push_back(std::move(message));
    for (ControlMessage& message : std::exchange(wire_->coming, {})) came.push_back(std::move(message));
    return wire_->end;
  }
  std::size_t unsent() const override { return wire_->unsent_bytes; }
  void allow_long_messages() override { wire_->long_messages = true; }
  int fd() const override { return -1; }
  short events() const override { return 0; }

 private:
  const std::shared_ptr<ToldWire> wire_;
  std::vector<ControlMessage> posted_;
};

}  // namespace tandem
