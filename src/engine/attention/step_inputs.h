// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The tensors of one micro-batch that its plan brings, filled into memory set aside once. Where operators have memory
// of their own, integers are filled on the host and copied there, from two places in turn: one step may be computed
// while the next is filled. Embedded rows have one place: a step that has any is done before the next fill.
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
    std::int64_t window_tokens = 0;    // of windowed layers; 0: there are none
    std::int64_t embedded_hidden = 0;  // of embedded rows; 0: there are none
  };
  StepInputs(Backend& backend, const Limits& limits);

  // Valid until the next fill.
  const RowBatch& fill(const MicroBatch& plan);
  const RowBatch& rows() const { return batch_; }

 private:
  void lay_out();
  void add_embedded(const SequenceRows& sequence, std::int64_t first_row, std::int64_t& count);
  // The first rows of a tensor of full_ in memory_, where operators find them.
  Tensor for_operators(const Tensor& full, std::int64_t rows) const;

  Backend& backend_;
  Limits limits_;
  std::int64_t fixed_ = 0;  // elements before the block table
  Buffer memory_;           // what the host fills; twice where there is far memory
  Buffer far_memory_;       // what operators read, where that is not the same
  Buffer embedded_memory_;  // shared: each row is read once; pages that no embedded row needs stay untouched
  std::size_t place_ = 0;   // of the last fill, in memory_
  RowBatch full_;           // tensors at their largest, at that place and in embedded_memory_
  RowBatch batch_;
};

}  // namespace tandem
