// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What one step computes: rows of tokens, grouped by sequence, grouped by micro-batch; and what came of it. Plain data:
// a batch is made by the scheduler and read by the engine and the simulator, results go the other way.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/kv_space.h"
#include "sched/request.h"

namespace tandem {

// Of a row that is planned ahead: the token that the step before draws.
inline constexpr std::int32_t kTokenToCome = -1;

// Consecutive positions of one sequence. Its rows are never divided over micro-batches.
struct SequenceRows {
  RequestId request = 0;
  std::int64_t position = 0;         // of the first row
  std::vector<std::int32_t> tokens;  // one row each; 1 in plain decoding, more for a prompt chunk or drafts
  std::int64_t logits_from = 0;      // rows [logits_from, tokens.size()) need logits; == size: none
  std::int64_t drafts = 0;           // so many of the last rows are guesses
  bool samples = false;    // a token is drawn after the last row that is no draft, and after each confirmed one
  bool retracted = false;  // planned ahead of a token that did not come: nothing of it is kept
  std::vector<std::int32_t> blocks;          // the block table, covering all positions up to the last row
  std::vector<std::int32_t> window_blocks;   // the same for windowed layers, if any; kNoBlock before what the rows see
  const SamplingParams* sampling = nullptr;  // valid until commit
  TokenConstraint* constraint = nullptr;     // valid until commit; null: none
  std::span<const std::int32_t> prompt;      // valid until commit; of a row planned ahead, from settle() on
  std::span<const std::int32_t> answer;      // the same
  std::span<const EmbeddedSpan> embedded;    // of the whole prompt; valid until commit

  std::int64_t rows() const { return static_cast<std::int64_t>(tokens.size()); }
  std::int64_t logits_rows() const { return rows() - logits_from; }
};

struct MicroBatch {
  std::vector<SequenceRows> sequences;

  std::int64_t rows() const;
  std::int64_t logits_rows() const;
};

struct Batch {
  std::uint64_t step = 0;
  std::vector<MicroBatch> micro_batches;  // none is empty, but the list may be
  FreshBlocks fresh;                      // to be zeroed before the step

  bool empty() const { return micro_batches.empty(); }
  std::int64_t rows() const;
};

// What became of one sequence's rows. Rows beyond rows_kept are rolled back. tokens: one per kept row from the
// sequence's last token on, hence none for a prompt chunk, one in plain decoding, several when drafts were accepted.
struct SequenceResult {
  RequestId request = 0;
  std::int64_t rows_kept = 0;
  std::vector<SampledToken> tokens;
  Status status = {};  // why a token failed, when it was not its logits
};

// Deals sequences to at most count micro-batches so that rows are about even: each sequence, largest first, goes to the
// emptiest one. Order within a micro-batch follows the input.
std::vector<MicroBatch> split_evenly(std::vector<SequenceRows> sequences, std::int32_t count);

}  // namespace tandem
