// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/pending_requests.h"

#include <algorithm>
#include <utility>

namespace tandem {

void PendingRequests::add(Request request, std::int32_t rank, std::shared_ptr<EventStream> events) {
  const RequestId id = request.id;
  std::lock_guard lock(mutex_);
  pending_[id] = {.request = std::move(request), .events = std::move(events), .meant_for = rank};
}

std::int32_t PendingRequests::cancel(RequestId id) {
  std::lock_guard lock(mutex_);
  const auto found = pending_.find(id);
  if (found == pending_.end()) return kNobody;
  Pending& pending = found->second;
  pending.cancelled = true;
  if (pending.sent) return pending.meant_for;
  push_end(pending, FinishReason::kCancelled, Status::ok());
  pending_.erase(found);
  return kNobody;
}

std::int64_t PendingRequests::count_of(std::int32_t rank) const {
  std::lock_guard lock(mutex_);
  return std::ranges::count_if(pending_, [&](const auto& entry) { return entry.second.meant_for == rank; });
}

bool PendingRequests::empty() const {
  std::lock_guard lock(mutex_);
  return pending_.empty();
}

std::int32_t PendingRequests::least_busy(const std::vector<bool>& present) const {
  std::lock_guard lock(mutex_);
  return fewest(present);
}

std::int32_t PendingRequests::fewest(const std::vector<bool>& present) const {
  std::vector<std::int64_t> counts(present.size(), 0);
  for (const auto& [id, other] : pending_) ++counts[static_cast<std::size_t>(other.meant_for)];
  std::int32_t best = kNobody;
  for (std::size_t rank = 0; rank < present.size(); ++rank)
    if (present[rank] && (best == kNobody || counts[rank] < counts[static_cast<std::size_t>(best)]))
      best = static_cast<std::int32_t>(rank);
  return best;
}

std::vector<PendingRequests::Sending> PendingRequests::take_unsent(const std::vector<bool>& present) {
  std::lock_guard lock(mutex_);
  std::vector<Sending> unsent;
  for (auto& [id, pending] : pending_) {
    if (pending.sent || pending.held_back) continue;
    const bool is_there = present[static_cast<std::size_t>(pending.meant_for)];
    const std::int32_t rank = is_there ? pending.meant_for : fewest(present);
    if (rank == kNobody) break;
    pending.meant_for = rank;
    pending.sent = true;
    unsent.push_back({rank, pending.request});
  }
  return unsent;
}

std::optional<RequestId> PendingRequests::begin_move(std::int32_t from) {
  std::lock_guard lock(mutex_);
  for (auto& [id, pending] : pending_) {
    if (pending.meant_for != from || !pending.sent || pending.moves || pending.cancelled) continue;
    pending.moves = true;
    return id;
  }
  return std::nullopt;
}

bool PendingRequests::end_move(RequestId id, std::int32_t to) {
  std::lock_guard lock(mutex_);
  const auto found = pending_.find(id);
  if (found == pending_.end() || !found->second.moves) return false;
  Pending& pending = found->second;
  pending.moves = pending.sent = false;
  pending.meant_for = to;
  if (!pending.cancelled) return true;
  push_end(pending, FinishReason::kCancelled, Status::ok());
  pending_.erase(found);
  return false;
}

void PendingRequests::unsend_all() {
  std::lock_guard lock(mutex_);
  for (auto& [id, pending] : pending_) {
    pending.sent = pending.held_back = false;
    pending.moves = false;
    if (pending.cancelled) push_end(pending, FinishReason::kCancelled, Status::ok());
  }
  std::erase_if(pending_, [](const auto& entry) { return entry.second.cancelled; });
}

bool PendingRequests::pass_on(RequestEvent event) {
  std::lock_guard lock(mutex_);
  const auto found = pending_.find(event.id);
  if (found == pending_.end() || !found->second.sent) return true;
  Pending& pending = found->second;
  const bool link_failed =
      event.finish == FinishReason::kError && !event.status && event.status.error().code() == ErrorCode::kUnavailable;
  const bool held_back = link_failed && pending.retries < kRetriesMax;
  for (const SampledToken& token : event.tokens) pending.request.answer.push_back(token.id);
  if (!pending.cached_tokens && !event.tokens.empty()) pending.cached_tokens = event.cached_tokens;
  event.cached_tokens = pending.cached_tokens.value_or(event.cached_tokens);
  if (held_back) {
    ++pending.retries;
    pending.sent = false;
    pending.held_back = true;
    event.finish = pending.cancelled ? FinishReason::kCancelled : FinishReason::kNone;
    event.status = Status::ok();
    if (event.tokens.empty() && !pending.cancelled) return false;
  }
  const bool last = event.finish != FinishReason::kNone;
  const std::shared_ptr<EventStream> events = pending.events;
  if (last) pending_.erase(found);
  events->push(std::move(event));
  return !held_back;
}

void PendingRequests::push_end(const Pending& pending, FinishReason finish, const Status& status) {
  RequestEvent event;
  event.id = pending.request.id;
  event.finish = finish;
  event.status = status;
  event.prompt_tokens = std::ssize(pending.request.prompt);
  pending.events->push(std::move(event));
}

void PendingRequests::end(RequestId id, FinishReason finish, const Status& status) {
  std::lock_guard lock(mutex_);
  const auto found = pending_.find(id);
  if (found == pending_.end()) return;
  push_end(found->second, finish, status);
  pending_.erase(found);
}

void PendingRequests::end_all(FinishReason finish, const Status& status) {
  std::lock_guard lock(mutex_);
  for (const auto& [id, pending] : pending_) push_end(pending, finish, status);
  pending_.clear();
}

}  // namespace tandem
