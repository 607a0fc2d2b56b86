// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Makes a worker's endpoints, one after the other, each on a thread of its own: what lies below may take long or never
// come back (UCX 1.13 has done so), and who waits for the worker has to be answered meanwhile.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/clock.h"
#include "base/error.h"
#include "transport/ucx/ucx.h"

namespace tandem {

struct EndpointOptions {
  // Called on the maker's thread, which may outlive whatever this does not own.
  std::function<std::unique_ptr<UcxTransport>(PeerRank rank, std::int32_t peers, const UcxConfig&)> make =
      UcxTransport::make;
  Nanoseconds time_max = 10'000'000'000;  // that making may take; usual are some 20 ms
};

class EndpointMaker {
 public:
  // made: called on the maker's thread when there is something to take, and not after the end of this.
  EndpointMaker(EndpointOptions options, std::function<void()> made);
  // Waits for what is being made as long as it may take. A thread that has not come back by then is left alone: nothing
  // but the end of the process ends it.
  ~EndpointMaker();
  EndpointMaker(const EndpointMaker&) = delete;
  EndpointMaker& operator=(const EndpointMaker&) = delete;

  // Only when not busy.
  void begin(PeerRank rank, std::int32_t peers, const UcxConfig& config);
  bool busy() const { return job_ != nullptr; }  // until what was begun has been taken
  // nullptr: it is not there yet, or nothing was begun. Throws what making it threw.
  std::unique_ptr<UcxTransport> take();
  // kUnavailable once making takes longer than it may.
  Status overdue() const;

 private:
  struct Job;

  const EndpointOptions options_;
  const std::function<void()> made_;
  RealClock clock_;
  std::shared_ptr<Job> job_;  // shared with its thread
};

}  // namespace tandem
