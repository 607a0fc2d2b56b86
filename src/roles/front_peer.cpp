// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/front_peer.h"

#include <poll.h>

#include "base/format.h"

namespace tandem {
namespace {

constexpr Nanoseconds kRedial = 100'000'000;

}  // namespace

std::string FrontPeer::title() const {
  return format("{} (rank {}, {}:{})", name_, place_.rank, place_.host, place_.port);
}

int FrontPeer::fd() const {
  return state_ == State::kConnecting ? connecting_.get() : connection_ ? connection_->fd() : -1;
}

short FrontPeer::events() const {
  if (state_ == State::kConnecting) return POLLOUT;
  return static_cast<short>(POLLIN | (connection_ && connection_->wants_to_write() ? POLLOUT : 0));
}

void FrontPeer::dial(Nanoseconds now) {
  if (state_ != State::kAway || now < next_dial_) return;
  std::string why;
  connecting_ = begin_connect(place_.host, place_.port, why);
  if (!connecting_) return lose(now, why);
  state_ = State::kConnecting;
  heard_ = now;
}

Status FrontPeer::move(const Greeting& greeting, Nanoseconds now, std::vector<ControlMessage>& came) {
  if (state_ == State::kConnecting) {
    if (const std::string why = connect_failure(connecting_); !why.empty()) return {ErrorCode::kUnavailable, why};
    connection_.emplace(std::move(connecting_),
                        credentials_ ? credentials_->begin(TlsSide::kFront, place_.host) : nullptr);
    connection_->post(greeting);
    state_ = State::kGreeting;
  }
  const std::size_t had = came.size();
  Status moved = connection_->move(came);
  if (came.size() > had) heard_ = now;
  return moved;
}

void FrontPeer::welcome(const Welcome& welcome) {
  state_ = State::kPresent;
  available_ = true;
  connection_->allow_long_messages();
  std::lock_guard lock(mutex_);
  welcome_ = welcome;
}

void FrontPeer::beat(Nanoseconds now, Nanoseconds every) {
  if (state_ != State::kPresent || now - beaten_ < every) return;
  beaten_ = now;
  connection_->post(Beat{});
}

void FrontPeer::report(const Report& r) {
  stats_.steps = r.steps;
  stats_.rows = r.rows;
  stats_.busy_ns = r.busy_ns;
  stats_.wait_ns = r.wait_ns;
  stats_.resends = r.resends;
  stats_.frames_refused = r.frames_refused;
  std::lock_guard lock(mutex_);
  load_.waiting = r.waiting;
  load_.running = r.running;
  load_.preemptions = r.preemptions;
  load_.kv.blocks = r.kv_blocks;
  load_.kv.held = r.kv_held;
  load_.kv.cached = r.kv_cached;
  load_.kv.lookup_tokens = r.lookup_tokens;
  load_.kv.hit_tokens = r.hit_tokens;
}

void FrontPeer::lose(Nanoseconds now, std::string why) {
  state_ = State::kAway;
  available_ = false;
  connection_.reset();
  connecting_.reset();
  takes_part = ready = false;
  addresses.reset();
  why_away_ = std::move(why);
  next_dial_ = now + kRedial;
}

Welcome FrontPeer::last_welcome() const {
  std::lock_guard lock(mutex_);
  return welcome_;
}

Scheduler::Load FrontPeer::load() const {
  std::lock_guard lock(mutex_);
  return load_;
}

}  // namespace tandem
