// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A stand-in for a model: the next token is a hash of everything in the cache before it. It reads the past only through
// block tables, so a wrong, stale or foreign block changes the answer, and it checks what a batch says about a
// sequence.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sched/batch.h"

namespace tandem {

class FakeModel {
 public:
  FakeModel(std::int64_t blocks, std::int32_t vocab);

  // The answer of a request that is alone in the world, as far as the context allows.
  static std::vector<std::int32_t> answer_alone(const Request& request, std::int64_t context_tokens_max,
                                                std::int32_t vocab);
  // The token after tokens.
  static std::int32_t next(std::span<const std::int32_t> tokens, std::int32_t vocab);

  void zero(std::span<const std::int32_t> blocks);
  // Computes the rows, draws from them as far as drafts agree, and says what is kept.
  SequenceResult run(const SequenceRows& rows);

 private:
  std::uint64_t& slot(const SequenceRows& rows, std::int64_t position);

  std::int32_t vocab_;
  std::vector<std::uint64_t> memory_;  // one value per slot
};

}  // namespace tandem
