// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/visitors.h"

#include <algorithm>
#include <utility>

#include "base/format.h"

namespace tandem {

void Visitors::accept(const Descriptor& listener, Nanoseconds now) {
  for (std::size_t i = 0; i < kVisitorsMax; ++i) {  // the rest another time
    Descriptor socket = accept_from(listener);
    if (!socket) return;
    if (all_.size() == kVisitorsMax) {
      all_.pop_front();
      tell_refused(format("{} others came after it and before it had spoken", kVisitorsMax), now);
    }
    all_.push_back(
        {ControlConnection(std::move(socket), credentials_ ? credentials_->begin(TlsSide::kWorker, "") : nullptr),
         now});
  }
}

void Visitors::wait_for(std::vector<pollfd>& waited) const {
  for (const Visitor& visitor : all_) {
    const int events = POLLIN | (visitor.connection.wants_to_write() ? POLLOUT : 0);
    waited.push_back({visitor.connection.fd(), static_cast<short>(events), 0});
  }
}

std::vector<Visitors::Guest> Visitors::move(Nanoseconds now) {
  std::vector<Guest> guests;
  std::erase_if(all_, [&](Visitor& visitor) {
    std::vector<ControlMessage> said;
    const Status moved = visitor.connection.move(said);
    if (!said.empty()) {
      guests.push_back({std::move(visitor.connection), std::move(said)});
      return true;
    }
    if (!moved) tell_refused(moved.error().message(), now);
    const bool late = now - visitor.since > patience_;
    if (moved && late)
      tell_refused(format("it has said nothing that counts for {} ms (link.lost_after_ms)", patience_ / kMillisecond),
                   now);
    return !moved || late;
  });
  return guests;
}

void Visitors::tell_refused(const std::string& why, Nanoseconds now) {
  lines_ = std::min(kLinesMax, lines_ + static_cast<double>(now - told_) * 1e-9);
  told_ = now;
  if (lines_ < 1) {
    ++untold_;
    return;
  }
  lines_ -= 1;
  const std::string more = untold_ > 0 ? format("; {} more before", untold_) : "";
  untold_ = 0;
  refused_(why + more);
}

}  // namespace tandem
