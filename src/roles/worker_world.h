// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the worker of a process has of its machine: time, endpoints, a thread, random numbers. The simulator has others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/clock.h"
#include "roles/endpoint_maker.h"

namespace tandem {

// Its end is waited for when it is destroyed.
class WorkerThread {
 public:
  virtual ~WorkerThread() = default;
};

class WorkerWorld {
 public:
  virtual ~WorkerWorld() = default;
  virtual const Clock& clock() const = 0;
  virtual EndpointMaker& endpoints() = 0;  // wakes when one is made
  virtual std::unique_ptr<WorkerThread> start(std::function<void()> run) = 0;
  // The control loop is to take a turn. Any thread.
  virtual void wake() = 0;
  virtual void fill_random(std::span<std::byte> bytes) = 0;  // that nobody can guess
  virtual std::int64_t process() const = 0;                  // its number, for who looks for it
};

// This machine's, with UCX. wake: as above.
class MachineWorld final : public WorkerWorld {
 public:
  MachineWorld(std::function<void()> wake, EndpointOptions endpoints)
      : wake_(std::move(wake)), endpoints_(std::move(endpoints), wake_) {}
  const Clock& clock() const override { return clock_; }
  EndpointMaker& endpoints() override { return endpoints_; }
  std::unique_ptr<WorkerThread> start(std::function<void()> run) override;
  void wake() override { wake_(); }
  void fill_random(std::span<std::byte> bytes) override;
  std::int64_t process() const override;

 private:
  const RealClock clock_;
  const std::function<void()> wake_;
  ThreadedEndpointMaker endpoints_;
};

}  // namespace tandem
