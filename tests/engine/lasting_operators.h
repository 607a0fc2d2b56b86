// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Operators that are run again later: a launch takes its arguments along, here they are kept.
#pragma once

#include <cstdint>
#include <deque>
#include <variant>
#include <vector>

#include "ops/operators.h"

namespace tandem {

class LastingOperators {
 public:
  Operator keep(const Operator& op) {
    const auto* combine = std::get_if<CombineExperts>(&op);
    if (!combine) return op;
    CombineExperts kept = *combine;
    kept.partials = partials_.emplace_back(combine->partials.begin(), combine->partials.end());
    kept.slice_counts = slice_counts_.emplace_back(combine->slice_counts.begin(), combine->slice_counts.end());
    return kept;
  }

 private:
  std::deque<std::vector<Tensor>> partials_;
  std::deque<std::vector<std::int32_t>> slice_counts_;
};

}  // namespace tandem
