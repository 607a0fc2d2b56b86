// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Where an in-process endpoint hears of what its peers' threads did: many push, one takes, and may wait for it.
//
// Waiting spins first, because a step's messages are microseconds apart and a sleep costs more than that, and then
// sleeps. It holds completions, not messages: bytes never pass through here. It never allocates after construction; its
// capacity is the number of operations that the endpoint may have posted, so a push always finds room.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <span>

#include "base/clock.h"
#include "tensor/copy_lane.h"
#include "transport/inproc/ring.h"
#include "transport/transport.h"

namespace tandem {

// An event, and whether it ends a send (kPeerGone does not tell).
struct Completion {
  TransportEvent event;
  bool of_send = false;
  CopyPointPtr rows = nullptr;  // the end of their copy, if any are under way
};

class EventQueue {
 public:
  EventQueue(std::size_t capacity, Nanoseconds spin) : events_(capacity), spin_(spin) {}

  // Any thread.
  void push(const Completion& completion);
  // Any thread. Ends the take that waits now, or else the next one that would wait: a wake before the wait is not lost.
  void wake();

  // The owner's thread. Moves the oldest completions into out and returns how many; with none there, waits up to wait
  // nanoseconds for the first one or a wake. A take that does not wait (wait ≤ 0) leaves a wake for the next that does.
  std::size_t take(std::span<Completion> out, Nanoseconds wait);

 private:
  void spin(Nanoseconds time) const;
  void publish() { something_.store(woken_ || !events_.empty(), std::memory_order_release); }

  std::mutex mutex_;
  std::condition_variable arrived_;
  Ring<Completion> events_;
  bool woken_ = false;
  bool asleep_ = false;  // a push or wake has to notify
  // woken_ or events_ not empty: written under the mutex, read without it so that spinning and an idle poll take no
  // lock.
  std::atomic<bool> something_ = false;
  const Nanoseconds spin_;
};

}  // namespace tandem
