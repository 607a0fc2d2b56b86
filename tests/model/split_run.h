// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A model run as workers run it: one holds the attention half, any number the FFN halves, and what they send back is
// put together row by row. No threads, no transport, no scheduler: what differs between two runs here differs in the
// model.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "model/model.h"

namespace tandem {

// What one FFN worker sends back for a routed layer.
struct WorkerSlots {
  FfnShare share;
  Tensor slot_rows;
};

// All slots in order of (row, slot). Every slot must belong to exactly one worker.
void merge_slots(const HandOver& hand_over, std::span<const WorkerSlots> workers, const Tensor& all);

// Loads the halves apart, the FFN half in shares for this many workers, and runs tokens as the prompt of one sequence.
// Returns the logits of all rows.
std::vector<float> split_logits(const Checkpoint& checkpoint, std::int32_t ffn_workers,
                                std::span<const std::int32_t> tokens);

// The same with the whole model in one piece.
std::vector<float> whole_logits(const Checkpoint& checkpoint, std::span<const std::int32_t> tokens);

// A reference backend that checks every operator before it runs it.
std::unique_ptr<Backend> checked_reference();

}  // namespace tandem
