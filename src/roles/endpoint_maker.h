// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Makes a worker's endpoints without being waited for: what lies below may take long or never come back (UCX 1.13 has
// done so), and who waits for the worker has to be answered meanwhile.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/clock.h"
#include "base/error.h"
#include "transport/ucx/ucx.h"

namespace tandem {

// Something in the process does not come back, so that it cannot end in order: whoever catches this says why and ends
// the process at once (std::_Exit), to be started again.
class StuckWorker : public Error {
 public:
  using Error::Error;
};

class EndpointMaker {
 public:
  virtual ~EndpointMaker() = default;
  // Only when not busy.
  virtual void begin(PeerRank rank, std::int32_t peers, const UcxConfig& config) = 0;
  virtual bool busy() const = 0;  // until what was begun has been taken
  // nullptr: it is not there yet, or nothing was begun. Throws what making it threw.
  virtual std::unique_ptr<MeetingTransport> take() = 0;
  // kUnavailable once making takes longer than it may.
  virtual Status overdue() const = 0;
};

struct EndpointOptions {
  // Called on the maker's thread, which may outlive whatever this does not own.
  std::function<std::unique_ptr<MeetingTransport>(PeerRank rank, std::int32_t peers, const UcxConfig&)> make =
      UcxTransport::make;
  Nanoseconds time_max = 10 * kSecond;  // that making may take; usual are some 20 ms
};

// One after the other, each on a thread of its own.
class ThreadedEndpointMaker final : public EndpointMaker {
 public:
  // made: called on the maker's thread when there is something to take, and not after the end of this.
  ThreadedEndpointMaker(EndpointOptions options, std::function<void()> made);
  // Waits for what is being made as long as it may take. A thread that has not come back by then is left alone: nothing
  // but the end of the process ends it.
  ~ThreadedEndpointMaker() override;
  ThreadedEndpointMaker(const ThreadedEndpointMaker&) = delete;
  ThreadedEndpointMaker& operator=(const ThreadedEndpointMaker&) = delete;

  void begin(PeerRank rank, std::int32_t peers, const UcxConfig& config) override;
  bool busy() const override { return job_ != nullptr; }
  std::unique_ptr<MeetingTransport> take() override;
  Status overdue() const override;

 private:
  struct Job;

  const EndpointOptions options_;
  const std::function<void()> made_;
  RealClock clock_;
  std::shared_ptr<Job> job_;  // shared with its thread
};

}  // namespace tandem
