// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/worker/event_stream.h"

#include <algorithm>
#include <chrono>

namespace tandem {

void EventStream::push(RequestEvent event) {
  {
    std::lock_guard lock(mutex_);
    const auto pending =
        std::find_if(events_.begin(), events_.end(), [&](const RequestEvent& e) { return e.id == event.id; });
    if (pending == events_.end()) {
      events_.push_back(std::move(event));
    } else {
      std::vector<SampledToken> tokens = std::move(pending->tokens);
      tokens.insert(tokens.end(), std::make_move_iterator(event.tokens.begin()),
                    std::make_move_iterator(event.tokens.end()));
      *pending = std::move(event);
      pending->tokens = std::move(tokens);
    }
    if (listener_) listener_();  // under the lock: once listen() has replaced it, nobody is in it
  }
  arrived_.notify_one();
}

void EventStream::listen(std::function<void()> listener) {
  std::lock_guard lock(mutex_);
  listener_ = std::move(listener);
}

std::optional<RequestEvent> EventStream::pop(Nanoseconds timeout) {
  std::unique_lock lock(mutex_);
  if (!arrived_.wait_for(lock, std::chrono::nanoseconds(timeout), [&] { return !events_.empty(); }))
    return std::nullopt;
  RequestEvent event = std::move(events_.front());
  events_.pop_front();
  return event;
}

}  // namespace tandem
