// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/front_peer.h"

#include "base/format.h"

namespace tandem {
namespace {

constexpr Nanoseconds kRedial = 100 * kMillisecond;

}  // namespace

std::string FrontPeer::title() const {
  return format("{} (rank {}, {}:{})", name_, place_.rank, place_.host, place_.port);
}

void FrontPeer::dial(ControlDialer& dialer, const Greeting& greeting, Nanoseconds now) {
  if (state_ != State::kAway || now < next_dial_) return;
  std::string why;
  channel_ = dialer.dial(place_, why);
  if (!channel_) return lose(now, why);
  state_ = State::kGreeting;
  heard_ = now;
  post(greeting);
}

Status FrontPeer::move(Nanoseconds now, std::vector<ControlMessage>& came) {
  const std::size_t had = came.size();
  Status moved = channel_->move(came);
  if (came.size() > had) heard_ = now;
  return moved;
}

void FrontPeer::welcome(const Welcome& welcome) {
  state_ = State::kPresent;
  available_ = !drained_;
  channel_->allow_long_messages();
  std::lock_guard lock(mutex_);
  welcome_ = welcome;
}

void FrontPeer::send() {
  if (!present()) return;
  outbox.move([this] { return channel_->unsent() < kUnsentEnough; },
              [this](const ControlMessage& message) { channel_->post(message); });
}

void FrontPeer::beat(Nanoseconds now, Nanoseconds every) {
  if (state_ != State::kPresent || now - beaten_ < every) return;
  beaten_ = now;
  channel_->post(Beat{});
}

void FrontPeer::report(const Report& r) {
  stats_.steps = r.steps;
  stats_.rows = r.rows;
  stats_.busy_ns = r.busy_ns;
  stats_.wait_ns = r.wait_ns;
  stats_.resends = r.resends;
  stats_.frames_refused = r.frames_refused;
  std::lock_guard lock(mutex_);
  load_ = r.load;
}

void FrontPeer::lose(Nanoseconds now, std::string why) {
  state_ = State::kAway;
  available_ = false;
  channel_.reset();
  takes_part = ready = slow = aside = false;
  addresses.reset();
  outbox.clear();
  why_away_ = std::move(why);
  next_dial_ = now + kRedial;
}

void FrontPeer::set_drained(bool drained) {
  drained_ = drained;
  available_ = present() && !drained;
}

OrderedJson FrontPeer::status() const {
  static constexpr const char* kStates[] = {"away", "greeting", "present"};
  const char* state = kStates[static_cast<std::size_t>(state_)];
  if (drained_)
    state = takes_part ? "draining" : "drained";
  else if (takes_part)
    state = ready ? "running" : "joining";
  else if (slow)
    state = "slow";
  OrderedJson status{
      {"rank", place_.rank}, {"name", name_}, {"host", place_.host}, {"port", place_.port}, {"state", state}};
  if (place_.replica_of >= 0) status["replica_of"] = place_.replica_of;
  if (state_ == State::kAway) status["why"] = why_away_;
  const Welcome welcome = last_welcome();
  const Scheduler::Load load = this->load();
  status["process"] = welcome.process;
  status["backend"] = welcome.backend;
  status["weight_bytes"] = welcome.weight_bytes;
  status["steps"] = stats_.steps.load();
  status["rows"] = stats_.rows.load();
  status["busy_ns"] = stats_.busy_ns.load();
  status["wait_ns"] = stats_.wait_ns.load();
  status["resends"] = stats_.resends.load();
  status["frames_refused"] = stats_.frames_refused.load();
  if (welcome.kv_tokens == 0) return status;
  status["requests_running"] = load.running;
  status["requests_waiting"] = load.waiting;
  status["preemptions"] = load.preemptions;
  status["kv_tokens"] = welcome.kv_tokens;
  status["kv_blocks"] = load.kv.blocks;
  status["kv_blocks_held"] = load.kv.held;
  status["kv_blocks_cached"] = load.kv.cached;
  return status;
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
