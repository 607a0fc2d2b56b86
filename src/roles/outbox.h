// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the front has for one attention worker, in order: requests, KV of some ahead of them, and what it wants of those
// that are there. Requests become messages only as the connection takes them, so that pictures of many requests, all
// sent again after a recovery, are neither copied at once nor take a connection for one that does not read. One thread.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <variant>

#include "roles/request_parcel.h"

namespace tandem {

class Outbox {
 public:
  void add(Request request) { items_.emplace_back(Parcel(std::move(request))); }
  void add(Cancel cancel) { items_.emplace_back(cancel); }  // after the request it is about
  void add(Yield yield) { items_.emplace_back(yield); }     // after that, too
  void add(Page page) {
    items_.emplace_back(std::move(page));
    ++pages_;
  }
  // True: it had not begun to be sent, and is no more. KV of it that has not been sent is not either.
  bool withdraw(RequestId id);
  bool has_pages() const { return pages_ > 0; }
  bool empty() const { return items_.empty(); }
  // What is left is for nobody any more; the half of a request that was posted is dropped by the worker too.
  void clear() {
    items_.clear();
    pages_ = 0;
  }
  // Posts messages as long as there is room.
  void move(const std::function<bool()>& room, const std::function<void(const ControlMessage&)>& post);

 private:
  std::deque<std::variant<Parcel, Cancel, Yield, Page>> items_;
  std::size_t pages_ = 0;  // of the items
};

}  // namespace tandem
