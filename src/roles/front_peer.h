// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A worker as the front sees it: its place, the channel to it, and what it said last. The front's thread alone uses it,
// but for what RequestTaker and the counters promise.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "deploy/deployment.h"
#include "engine/worker/workers.h"
#include "roles/control_channel.h"
#include "roles/outbox.h"

namespace tandem {

class FrontPeer {
 public:
  enum class State { kAway, kGreeting, kPresent };

  FrontPeer(const WorkerPlace& place, std::string name) : place_(place), name_(std::move(name)) {}

  const WorkerPlace& place() const { return place_; }
  // "F1 (rank 2, 127.0.0.1:7002)"
  std::string title() const;
  State state() const { return state_; }
  bool present() const { return state_ == State::kPresent; }
  const ControlChannel* channel() const { return channel_.get(); }  // null: none

  // Begins to connect and greets, where the time has come to try again.
  void dial(ControlDialer& dialer, const Greeting& greeting, Nanoseconds now);
  // Appends messages that came; an error: it is gone, and why.
  Status move(Nanoseconds now, std::vector<ControlMessage>& came);
  void welcome(const Welcome& welcome);
  void post(const ControlMessage& message) { channel_->post(message); }
  void send();  // of its outbox, what the channel takes
  void beat(Nanoseconds now, Nanoseconds every);
  void report(const Report& report);
  // Tried again after a while.
  void lose(Nanoseconds now, std::string why);

  Nanoseconds heard() const { return heard_; }
  const std::string& why_away() const { return why_away_; }

  // Present or not, it is not to take part until it is added again.
  bool drained() const { return drained_; }
  void set_drained(bool drained);
  OrderedJson status() const;  // for who operates the deployment

  // Its endpoint takes so long that the others go on without it, until it says that it has one.
  bool slow = false;
  // It was slow in its steps: others come first, until it is added again.
  bool aside = false;
  bool usable() const { return present() && !drained_ && !slow; }

  // Of the epoch that is being formed.
  bool takes_part = false, ready = false;
  std::optional<Addresses> addresses;
  Outbox outbox;  // of the epoch that runs

  // Any thread.
  Welcome last_welcome() const;
  bool available() const { return available_; }
  const WorkerStats& stats() const { return stats_; }
  Scheduler::Load load() const;

 private:
  const WorkerPlace& place_;
  const std::string name_;
  State state_ = State::kAway;
  std::unique_ptr<ControlChannel> channel_;
  Nanoseconds next_dial_ = 0, heard_ = 0, beaten_ = 0;
  std::string why_away_ = "it does not listen";
  bool drained_ = false;
  std::atomic<bool> available_ = false;
  WorkerStats stats_;
  mutable std::mutex mutex_;  // guards what follows
  Welcome welcome_;
  Scheduler::Load load_;
};

}  // namespace tandem
