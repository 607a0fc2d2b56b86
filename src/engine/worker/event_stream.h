// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The way back: news of requests from worker threads to whoever asked. Bounded by design: at most one pending event per
// request, since news of a request that has not been read yet grows by the newer tokens.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>

#include "base/clock.h"
#include "sched/request.h"

namespace tandem {

// Any thread.
class EventStream {
 public:
  void push(RequestEvent event);
  // From now on calls listener after each push, on the thread that pushed, until another one (or none) is set. It must
  // be quick and must not call back.
  void listen(std::function<void()> listener);
  // The oldest event; waits up to timeout for one.
  std::optional<RequestEvent> pop(Nanoseconds timeout);

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<RequestEvent> events_;
  std::function<void()> listener_;
};

}  // namespace tandem
