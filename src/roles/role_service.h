// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a worker's process does for its front, without sockets and waiting: it takes one front at a time, does what that
// one says, and tells its news. It decides nothing about others. One thread.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "deploy/deployment.h"
#include "roles/control_channel.h"
#include "roles/worker_host.h"

namespace tandem {

class RoleService {
 public:
  // Everything named must outlive it. say: a line of what happens.
  RoleService(const Deployment& deployment, std::int32_t rank, LoadedWorker loaded, WorkerWorld& world,
              ConstraintFactory make_constraint, std::function<void(const std::string&)> say);

  // Does all that can be done now: to be called when the world was woken, when the front's channel has moved, at least
  // every link.heartbeat_ms, and often while it joins. Throws StuckWorker, and Error when the worker has failed,
  // after the front was told.
  void turn();
  // Somebody has said something, its first message at least: who greets as a front of this deployment is the front,
  // unless there is one. An error: it was refused, and why.
  Status greet(std::unique_ptr<ControlChannel> channel, std::span<ControlMessage> said);
  void end() { dissolve(); }

  Welcome welcome() const { return host_.welcome(); }
  const ControlChannel* front() const { return front_.get(); }  // null: none
  bool joins() const { return joins_; }                         // peers are to be heard before the worker can run
  Report report() const { return host_.report(); }

 private:
  void say(const std::string& line) const;
  void tell_addresses();
  void join();
  void tell_news();
  void tell_pages();
  void tell_piece(const WorkerHost::Left& left);
  void tell_report();
  void check_silence();
  void move();
  void take_all(std::span<ControlMessage> came);
  void take(ControlMessage& message);
  void check_greeting(const ControlMessage& message) const;
  void dissolve();
  void refuse_front(const Error& error);  // where there is one
  void drop(const std::string& why);
  template <class Failure>
  [[noreturn]] void fail(const Failure& error);

  const Deployment& deployment_;
  const std::int32_t rank_;
  WorkerWorld& world_;
  const std::function<void(const std::string&)> say_;
  WorkerHost host_;
  std::unique_ptr<ControlChannel> front_;  // of this deployment, as far as it has shown
  std::deque<WorkerHost::Left> left_;      // that the front has not been told of in full
  std::uint32_t page_ = 0;                 // of the first of them, to be told next
  std::size_t told_ = 0;                   // bytes of that page
  bool joins_ = false;
  Nanoseconds heard_ = 0, reported_ = 0;
};

}  // namespace tandem
