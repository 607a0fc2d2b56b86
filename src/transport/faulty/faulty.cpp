// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/faulty/faulty.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/format.h"

namespace tandem {
namespace {

bool makes_copies(const FaultPolicy& policy) {
  return policy.delay > 0 || policy.duplicate > 0 || policy.corrupt > 0;
}

void validate(const FaultPolicy& policy, std::int32_t sends_max) {
  const auto refuse = [](const std::string& why) { throw Error(ErrorCode::kInvalidArgument, "fault policy: " + why); };
  const auto probability = [&](const char* what, double value) {
    if (!(value >= 0 && value <= 1)) refuse(format("{} is {}, a probability is 0 to 1", what, value));
  };
  probability("drop", policy.drop);
  probability("delay", policy.delay);
  probability("duplicate", policy.duplicate);
  probability("corrupt", policy.corrupt);
  if (policy.delay_by < 0) refuse(format("delay_by is {} ns, at least 0 is needed", policy.delay_by));
  if (makes_copies(policy) && (policy.copies_max < 1 || policy.copies_max >= sends_max)) {
    refuse(format("copies_max is {}, it must be at least 1 and below the inner transport's sends_max of {}",
                  policy.copies_max, sends_max));
  }
}

}  // namespace

FaultyTransport::FaultyTransport(std::unique_ptr<Transport> inner, FaultPolicy policy, std::uint64_t seed,
                                 const Clock& clock)
    : policy_(std::move(policy)),
      clock_(clock),
      rng_(seed),
      inner_(std::move(inner)),
      capabilities_(inner_->capabilities()),
      rank_(inner_->rank()),
      peers_(inner_->peers()) {
  validate(policy_, capabilities_.sends_max);
  if (!makes_copies(policy_)) return;
  capabilities_.sends_max -= policy_.copies_max;
  copies_.resize(static_cast<std::size_t>(policy_.copies_max));
  copy_memory_.resize(copies_.size() * policy_.copy_bytes_max);
  if (Status status = inner_->register_region(copy_memory_); !status) throw status.error();
}

Status FaultyTransport::register_region(std::span<std::byte> region) {
  if (failed()) return {ErrorCode::kUnavailable, format("endpoint {} has failed", rank_)};
  return inner_->register_region(region);
}

Status FaultyTransport::post_receive(PeerRank from, std::span<std::byte> buffer, OperationId operation) {
  if (Status status = check_post(from, operation); !status) return status;
  post_due_copies();
  Status status = inner_->post_receive(from, buffer, operation);
  if (status) posted_.push_back({from, operation, false});
  return status;
}

Status FaultyTransport::post_receive_rows(PeerRank from, std::span<std::byte> buffer, std::span<std::byte> rows,
                                          OperationId operation) {
  if (Status status = check_post(from, operation); !status) return status;
  post_due_copies();
  Status status = inner_->post_receive_rows(from, buffer, rows, operation);
  if (status) posted_.push_back({from, operation, false});
  return status;
}

Status FaultyTransport::post_send(PeerRank to, std::span<const std::byte> message, OperationId operation) {
  return post({.to = to, .message = message, .operation = operation});
}

Status FaultyTransport::post_send_rows(PeerRank to, std::span<const std::byte> message, std::span<const std::byte> rows,
                                       OperationId operation) {
  return post({.to = to, .message = message, .operation = operation, .rows = rows});
}

Status FaultyTransport::post(const Outgoing& out) {
  const auto& [to, message, operation, rows] = out;
  if (Status status = check_post(to, operation); !status) return status;
  if (Status status = check_send(to, message); !status) return status;
  post_due_copies();
  if (policy_.applies && !policy_.applies(to, message)) return pass(out);
  if (policy_.fail_after && counts_.messages >= *policy_.fail_after) {
    fail();
    finish(TransportEvent::Kind::kPeerGone, {to, operation, true});
    return Status::ok();
  }
  ++counts_.messages;
  return post_with_faults(out);
}

Status FaultyTransport::check_post(PeerRank peer, OperationId operation) const {
  if (failed())
    return {ErrorCode::kUnavailable, format("endpoint {} has failed, peer {} is out of reach", rank_, peer)};
  if (peer < 0 || peer >= peers_) {
    return {ErrorCode::kInvalidArgument, format("post names peer {}, limit is {} peers", peer, peers_)};
  }
  const OperationId last = std::numeric_limits<OperationId>::max() - copies_.size();
  if (operation > last)
    return {ErrorCode::kInvalidArgument, format("operation id {} is taken, limit is {}", operation, last)};
  return Status::ok();
}

Status FaultyTransport::check_send(PeerRank to, std::span<const std::byte> message) const {
  if (message.size() > capabilities_.message_bytes_max) {
    return {ErrorCode::kInvalidArgument, format("message to peer {} has {} bytes, limit is {} (message_bytes_max)", to,
                                                message.size(), capabilities_.message_bytes_max)};
  }
  // inner_ counts only what reached it.
  const auto in_flight =
      std::count_if(posted_.begin(), posted_.end(), [to](const Operation& o) { return o.is_send && o.peer == to; }) +
      std::count_if(finished_.begin(), finished_.end(),
                    [to](const Finished& f) { return f.of_send && f.event.peer == to; });
  if (in_flight < capabilities_.sends_max) return Status::ok();
  return {ErrorCode::kOutOfResources,
          format("peer {} has {} sends in flight, limit is {} (sends_max)", to, in_flight, capabilities_.sends_max)};
}

Status FaultyTransport::pass(const Outgoing& out) {
  Status status = out.rows ? inner_->post_send_rows(out.to, out.message, *out.rows, out.operation)
                           : inner_->post_send(out.to, out.message, out.operation);
  if (status) posted_.push_back({out.to, out.operation, true});
  return status;
}

// Null where there is no room, or rows that nobody here can read.
FaultyTransport::Copy* FaultyTransport::copy_of(const Outgoing& out) {
  if (!out.rows) return make_copy(out.to, out.message);
  ++counts_.uncopied;
  return nullptr;
}

Status FaultyTransport::post_with_faults(const Outgoing& out) {
  const auto& [to, message, operation, rows] = out;
  // All are drawn for every message, so that one probability does not change what another one hits.
  const bool drop = rng_.uniform() < policy_.drop, delay = rng_.uniform() < policy_.delay;
  const bool duplicate = rng_.uniform() < policy_.duplicate;
  const bool corrupt = rng_.uniform() < policy_.corrupt && !message.empty();
  if (drop) {
    ++counts_.dropped;
    finish(TransportEvent::Kind::kSent, {to, operation, true});
    return Status::ok();
  }
  Copy* copy = delay || corrupt ? copy_of(out) : nullptr;
  if (copy) {
    finish(TransportEvent::Kind::kSent, {to, operation, true});
    if (corrupt) flip_a_bit(bytes_of(*copy));
    counts_.corrupted += corrupt;
    counts_.delayed += delay;
    if (delay) {
      copy->due = clock_.now() + policy_.delay_by;
    } else {
      post_copy(*copy);
    }
  } else if (Status status = pass(out); !status) {
    return status;
  }
  if (Copy* second = duplicate ? copy_of(out) : nullptr) {
    ++counts_.duplicated;
    post_copy(*second);
  }
  return Status::ok();
}

void FaultyTransport::finish(TransportEvent::Kind kind, const Operation& operation) {
  finished_.push_back({.event = {kind, operation.peer, operation.id, 0}, .of_send = operation.is_send});
}

void FaultyTransport::fail() {
  // What has already happened is told first; an operation ends once.
  std::array<TransportEvent, 16> events;
  while (const std::size_t polled = inner_->poll(events, 0)) {
    const std::size_t count = keep_own(std::span(events).first(polled));
    for (std::size_t i = 0; i < count; ++i) {
      finished_.push_back({.event = events[i], .of_send = events[i].kind == TransportEvent::Kind::kSent});
    }
  }
  {
    const std::lock_guard lock(mutex_);
    inner_.reset();
  }
  for (const Operation& operation : posted_) finish(TransportEvent::Kind::kPeerGone, operation);
  posted_.clear();
  for (Copy& copy : copies_) copy.state = CopyState::kFree;
}

std::span<std::byte> FaultyTransport::bytes_of(const Copy& copy) {
  const auto index = static_cast<std::size_t>(&copy - copies_.data());
  return std::span(copy_memory_).subspan(index * policy_.copy_bytes_max, copy.bytes);
}

// A copy that nobody has posted yet, or null when there is no room.
FaultyTransport::Copy* FaultyTransport::make_copy(PeerRank to, std::span<const std::byte> message) {
  const auto is_free = [](const Copy& copy) { return copy.state == CopyState::kFree; };
  const auto copy = std::find_if(copies_.begin(), copies_.end(), is_free);
  if (copy == copies_.end() || message.size() > policy_.copy_bytes_max) {
    ++counts_.uncopied;
    return nullptr;
  }
  *copy = {.state = CopyState::kDelayed, .to = to, .bytes = message.size(), .due = 0, .order = copy_order_++};
  if (!message.empty()) std::memcpy(bytes_of(*copy).data(), message.data(), message.size());
  return &*copy;
}

void FaultyTransport::flip_a_bit(std::span<std::byte> bytes) {
  const std::uint64_t bit = rng_.below(bytes.size() * 8);
  bytes[bit / 8] ^= std::byte{1} << (bit % 8);
}

void FaultyTransport::post_copy(Copy& copy) {
  const auto index = static_cast<OperationId>(&copy - copies_.data());
  const Status status = inner_->post_send(copy.to, bytes_of(copy), std::numeric_limits<OperationId>::max() - index);
  copy.state = status ? CopyState::kPosted : CopyState::kFree;  // refused: the peer is gone, and the copy with it
}

// The delayed copy to be posted first, or null when none is delayed.
FaultyTransport::Copy* FaultyTransport::next_due() {
  Copy* next = nullptr;
  for (Copy& copy : copies_) {
    if (copy.state != CopyState::kDelayed) continue;
    if (!next || std::pair(copy.due, copy.order) < std::pair(next->due, next->order)) next = &copy;
  }
  return next;
}

void FaultyTransport::post_due_copies() {
  for (Copy* copy = next_due(); copy && copy->due <= clock_.now(); copy = next_due()) post_copy(*copy);
}

std::size_t FaultyTransport::poll(std::span<TransportEvent> events, Nanoseconds wait) {
  const bool waits = wait > 0;
  if (!failed()) post_due_copies();
  std::size_t count = take_finished(events);
  if (failed()) {
    if (count == 0 && waits) wait_without_inner(wait);
    return count;
  }
  count += keep_own(events.subspan(count, inner_->poll(events.subspan(count), 0)));
  while (count == 0 && wait > 0 && !events.empty()) {
    // Until the next delayed copy is due at most. Time is what inner_ was told to wait, since clock_ need not move.
    Nanoseconds slice = wait;
    if (const Copy* copy = next_due()) slice = std::min(slice, std::max<Nanoseconds>(copy->due - clock_.now(), 1));
    const std::size_t polled = inner_->poll(events, slice);
    count = keep_own(events.first(polled));
    if (polled == 0 && woken_.load()) break;
    if (polled == 0) wait -= slice;
    post_due_copies();
  }
  if (waits) woken_.store(false);
  return count;
}

// Takes the events of copies out, which the caller knows nothing of, and returns how many are left.
std::size_t FaultyTransport::keep_own(std::span<TransportEvent> events) {
  std::size_t kept = 0;
  for (const TransportEvent& event : events) {
    const OperationId copy = std::numeric_limits<OperationId>::max() - event.operation;
    if (copy < copies_.size()) {
      copies_[copy].state = CopyState::kFree;
      continue;
    }
    const auto posted = std::find_if(posted_.begin(), posted_.end(), [&event](const Operation& o) {
      const bool fits =
          event.kind == TransportEvent::Kind::kPeerGone || o.is_send == (event.kind == TransportEvent::Kind::kSent);
      return fits && o.peer == event.peer && o.id == event.operation;
    });
    TANDEM_CHECK(posted != posted_.end(),
                 format("operation {} of peer {} was not posted", event.operation, event.peer));
    posted_.erase(posted);
    events[kept++] = event;
  }
  return kept;
}

std::size_t FaultyTransport::take_finished(std::span<TransportEvent> events) {
  std::size_t count = 0;
  for (; count < events.size() && !finished_.empty(); finished_.pop_front()) events[count++] = finished_.front().event;
  return count;
}

void FaultyTransport::wait_without_inner(Nanoseconds wait) {
  constexpr Nanoseconds kWaitMax = 3600 * kSecond;  // keeps the deadline from overflowing
  std::unique_lock lock(mutex_);
  woken_without_inner_.wait_for(lock, std::chrono::nanoseconds(std::min(wait, kWaitMax)),
                                [this] { return woken_.load(); });
  woken_.store(false);
}

void FaultyTransport::wake() {
  const std::lock_guard lock(mutex_);
  woken_.store(true);
  if (inner_) {
    inner_->wake();
  } else {
    woken_without_inner_.notify_all();
  }
}

}  // namespace tandem
