// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A window into a running engine for verification: sees what the goldens record. Called on the worker's thread, within
// a step.
#pragma once

#include <cstdint>
#include <span>

#include "sched/request.h"

namespace tandem {

class Observer {
 public:
  virtual ~Observer() = default;
  // Expert choices of one position; called again when the position is computed again.
  virtual void on_route(RequestId request, std::int64_t position, std::int32_t layer, std::span<const std::int32_t> ids,
                        std::span<const float> weights) = 0;
  // Logits after the token at position.
  virtual void on_logits(RequestId request, std::int64_t position, std::span<const float> logits) = 0;
};

}  // namespace tandem
