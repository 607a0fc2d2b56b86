// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/outbox.h"

namespace tandem {

void Outbox::move(const std::function<bool()>& room, const std::function<void(const ControlMessage&)>& post) {
  while (!items_.empty() && room()) {
    if (auto* parcel = std::get_if<Parcel>(&items_.front())) {
      post(parcel->next());
      if (!parcel->done()) continue;
    } else {
      post(std::get<Cancel>(items_.front()));
    }
    items_.pop_front();
  }
}

}  // namespace tandem
