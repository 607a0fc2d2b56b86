// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sched/embedding_rows.h"

namespace tandem {

std::optional<ContentIds::Keys> ContentIds::keys(const EmbeddedSpan& span) {
  const Content content{span.rows->digest, span.first_row};
  auto found = numbers_.find(content);
  if (found == numbers_.end()) {
    if (next_ == kNumbers) return std::nullopt;
    if (numbers_.size() >= entries_max_) numbers_.clear();  // costs prefix hits, nothing else
    found = numbers_.emplace(content, next_++).first;
  }
  return Keys{-1 - 2 * found->second, -2 - 2 * found->second};
}

}  // namespace tandem
