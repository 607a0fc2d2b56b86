// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/outbox.h"

#include <algorithm>

namespace tandem {

bool Outbox::withdraw(RequestId id) {
  pages_ -= std::erase_if(items_, [&](const auto& item) {
    const auto* page = std::get_if<Page>(&item);
    return page && page->id == id;
  });
  const auto is_it = [&](const auto& item) {
    const auto* parcel = std::get_if<Parcel>(&item);
    return parcel && parcel->id() == id && !parcel->begun();
  };
  return std::erase_if(items_, is_it) > 0;
}

void Outbox::move(const std::function<bool()>& room, const std::function<void(const ControlMessage&)>& post) {
  while (!items_.empty() && room()) {
    if (auto* parcel = std::get_if<Parcel>(&items_.front())) {
      post(parcel->next());
      if (!parcel->done()) continue;
    } else if (auto* page = std::get_if<Page>(&items_.front())) {
      post(std::move(*page));
      --pages_;
    } else if (const auto* yield = std::get_if<Yield>(&items_.front())) {
      post(*yield);
    } else {
      post(std::get<Cancel>(items_.front()));
    }
    items_.pop_front();
  }
}

}  // namespace tandem
