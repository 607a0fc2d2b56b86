// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What stands in for a model in a simulation: the next token is a hash of all tokens before it. It reads the past only
// through block tables, from a memory of one word per position, so that a wrong, stale or foreign block gives another
// answer than the request would get alone. No weights, no logits, no notion of likely tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/rng.h"
#include "sched/batch.h"

namespace tandem {

// All that matters of the tokens before a position.
class HashedPast {
 public:
  // What a token leaves in the cache at this position. It depends on the past, as keys and values do.
  std::uint64_t kv(std::int32_t token) const {
    return mix64(past_ ^ (static_cast<std::uint64_t>(token) + 1) * 0x9e3779b97f4a7c15ull);
  }
  void read(std::uint64_t kv) { past_ = mix64(past_ + kv + 0x9e3779b97f4a7c15ull); }
  void append(std::int32_t token) { read(kv(token)); }
  std::int32_t next_token(std::int32_t vocab) const {
    return static_cast<std::int32_t>(Rng(past_).below(static_cast<std::uint64_t>(vocab)));
  }

 private:
  std::uint64_t past_ = 0;
};

class HashModel {
 public:
  HashModel(std::int64_t blocks, std::int32_t vocab);

  // The answer of a request that is alone in the world, as far as the context allows.
  static std::vector<std::int32_t> answer_alone(const Request& request, std::int64_t context_tokens_max,
                                                std::int32_t vocab);

  void zero(std::span<const std::int32_t> blocks);
  // Computes the rows, draws tokens as far as drafts agree with them, and says what is kept.
  SequenceResult run(const SequenceRows& rows);

 private:
  std::uint64_t& kv_at(const SequenceRows& rows, std::int64_t position);

  std::int32_t vocab_;
  std::vector<std::uint64_t> memory_;  // [blocks · kBlockTokens]
};

}  // namespace tandem
