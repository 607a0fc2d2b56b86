// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Draws the tokens of a step from its logits, within what each sequence's constraint allows. In plain decoding, where
// every sequence has one row of logits, all draws are one operator, and a step that runs ahead can be given between its
// beginning and its end. Else sequences are drawn for in turn, row by row: a draft that the draw confirms lets the next
// row be drawn from as well.
//
// Results are appended in the order of the plans' sequences, one for each. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "ops/backend.h"
#include "sched/batch.h"

namespace tandem {

class TokenDraws {
 public:
  // Of logits [rows, vocab], rows_max at most.
  TokenDraws(Backend& backend, std::int64_t vocab, std::int64_t rows_max);

  // Of a micro-batch of any kind.
  void draw(const MicroBatch& plan, const Tensor& logits, std::vector<SequenceResult>& results);
  // Of micro-batches whose sequences have a row of logits each, where they sample, and else none.
  void draw_together(std::span<const MicroBatch> plans, const Tensor& logits, std::vector<SequenceResult>& results);
  // The same in two parts. Work that is given after begin() finds the drawn tokens in ids, i32 [rows] (Backend::begin);
  // take() comes after finish(), with the rows that it left out, and no other draw before it. Their sequences keep
  // nothing: the host is to draw.
  std::unique_ptr<Draw> begin(std::span<const MicroBatch> plans, const Tensor& logits, const Tensor& ids);
  void take(std::span<const MicroBatch> plans, std::span<const std::size_t> left_out,
            std::vector<SequenceResult>& results);

  // Whether a row of one of these requests was left out before: nothing runs ahead of them any more.
  bool needs_host(std::span<const MicroBatch> plans) const;
  // The request has ended.
  void forget(RequestId request) { left_out_.erase(request); }

 private:
  Sample operator_of(std::span<const MicroBatch> plans, const Tensor& logits);
  void draw_in_turn(const SequenceRows& sequence, const Tensor& logits, std::int64_t logits_end,
                    SequenceResult& result);
  Status allow(const SequenceRows& sequence, std::span<const std::int32_t> after, std::size_t place, SampleRow& row);

  Backend& backend_;
  std::size_t mask_words_;  // of one row
  std::size_t rows_max_;
  std::vector<SampleRow> rows_;  // of the operator of draws together, and what comes of each:
  std::vector<SampledToken> drawn_;
  std::vector<Status> statuses_;
  std::vector<std::uint32_t> allowed_;  // the masks of all rows that are drawn from
  std::set<RequestId> left_out_;
};

}  // namespace tandem
