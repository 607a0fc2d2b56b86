// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A request on its way through the scheduler: its tokens, its blocks, how far it is computed. Knows nothing of other
// sequences, and takes no decision about them.
//
//   tokens    | prompt ............ | answer ....... |
//   computed  | KV is there ............... | pending |      pending >= 1: the last token's row gives the next token
//
// A preempted sequence is one whose computed went back to 0; a decoding one has a single pending token. There is no
// other difference between prefill, decoding and recomputation.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/kv_space.h"
#include "sched/batch.h"
#include "sched/request.h"

namespace tandem {

struct Sequence {
  Sequence(Request request, std::int64_t context_tokens_max, ContentIds& content_ids);

  Request request;                   // its prompt and answer have moved to tokens
  std::vector<std::int32_t> tokens;  // prompt, then answer; drafts are not in it
  std::int64_t prompt_tokens;
  std::int64_t tokens_max;    // prompt and answer; reaching it ends the request
  BlockTable table;           // covers computed, and the rows of the steps in flight
  std::int64_t computed = 0;  // positions whose KV is committed
  std::int64_t cached_tokens = 0;
  std::int32_t preemptions = 0;
  std::uint64_t ordinal = 0;  // of its submission: a smaller one is older
  Status failure = {};        // why its constraint did not take a token
  bool shares_prefix = true;  // its tokens say all there is to know, or its prefix does
  bool finished = false;  // its last event is out; it lives on until the last step in flight that has rows of it ends
  bool flies_on = false;  // the step after the one in flight has a row of it

  // What the prefix index compares: tokens, with the content of embedded rows in place of their placeholders.
  std::span<const std::int32_t> prefix() const { return request.embedded.empty() ? tokens : prefix_; }
  std::int64_t size() const { return static_cast<std::int64_t>(tokens.size()); }
  std::int64_t pending() const { return size() - computed; }
  bool decoding() const { return pending() == 1; }
  // Blocks that the rest of its tokens, and then one block of its answer, will take on top of the table's.
  std::int64_t blocks_to_come() const;

  // The rows of a step: the next count pending tokens, then drafts. The table must have room for them.
  SequenceRows rows(std::int64_t count, std::span<const std::int32_t> drafts) const;
  // The row after the one in flight, whose token is not known.
  SequenceRows row_ahead() const;
  // Fills in what the step before brought, or retracts the row.
  void settle(SequenceRows& row) const;
  // Takes over what a step computed, as far as it is kept. Returns the tokens that are news: those up to the end of the
  // request, which is then in finish.
  std::vector<SampledToken> advance(const SequenceResult& result, FinishReason& finish);
  RequestEvent event(FinishReason finish) const;
  void check_integrity(bool in_flight) const;

 private:
  void spell_prefix(ContentIds& content_ids);
  void describe(SequenceRows& rows) const;  // the table, and what else stays as it is
  std::span<const std::int32_t> prompt() const {
    return std::span(tokens).first(static_cast<std::size_t>(prompt_tokens));
  }
  std::span<const std::int32_t> answer() const {
    return std::span(tokens).subspan(static_cast<std::size_t>(prompt_tokens));
  }
  FinishReason append(const SampledToken& token);

  std::vector<std::int32_t> prefix_;  // as long as tokens; empty without embedded rows
};

}  // namespace tandem
