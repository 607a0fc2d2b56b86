// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/inproc/event_queue.h"

#include <algorithm>
#include <chrono>

namespace tandem {
namespace {

// Tells the core that this is a spin: it then leaves the execution units to its sibling thread.
void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

void EventQueue::push(const Completion& completion) {
  bool notify = false;
  {
    const std::lock_guard lock(mutex_);
    events_.push(completion);
    publish();
    notify = asleep_;
  }
  if (notify) arrived_.notify_one();
}

void EventQueue::wake() {
  bool notify = false;
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
    publish();
    notify = asleep_;
  }
  if (notify) arrived_.notify_one();
}

std::size_t EventQueue::take(std::span<Completion> out, Nanoseconds wait) {
  if (wait <= 0 && !something_.load(std::memory_order_acquire)) return 0;
  spin(std::min(wait, spin_));

  std::unique_lock lock(mutex_);
  if (wait > 0) {
    constexpr Nanoseconds kWaitMax = 3600 * kSecond;  // keeps the deadline from overflowing
    asleep_ = true;
    arrived_.wait_for(lock, std::chrono::nanoseconds(std::min(wait, kWaitMax)),
                      [this] { return woken_ || !events_.empty(); });
    asleep_ = false;
    woken_ = false;
  }
  std::size_t count = 0;
  while (count < out.size() && !events_.empty()) out[count++] = events_.pop();
  publish();
  return count;
}

void EventQueue::spin(Nanoseconds time) const {
  if (time <= 0) return;
  const RealClock clock;
  const Nanoseconds end = clock.now() + time;
  while (!something_.load(std::memory_order_acquire) && clock.now() < end) relax();
}

}  // namespace tandem
