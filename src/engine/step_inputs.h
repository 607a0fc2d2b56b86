// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The integer tensors of one micro-batch, filled from its plan into memory set aside once.
#pragma once

#include "model/model.h"
#include "ops/backend.h"
#include "sched/batch.h"

namespace tandem {

class StepInputs {
 public:
  struct Limits {
    std::int64_t rows = 0;
    std::int64_t sequences = 0;
    std::int64_t blocks_per_sequence = 0;
  };
  StepInputs(Backend& backend, const Limits& limits);

  // Valid until the next fill.
  const RowBatch& fill(const MicroBatch& plan);
  const RowBatch& rows() const { return batch_; }

 private:
  Limits limits_;
  Buffer memory_;
  RowBatch full_;  // tensors at their largest
  RowBatch batch_;
};

}  // namespace tandem
