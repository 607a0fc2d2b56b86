// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Sampling on the GPU: what the host calls, and how a row's wishes look to the kernel. The definition is sample_row
// (ops/sampling.h); the kernel draws the same token for the same (seed, position) unless a random number or a top-p
// falls within rounding of a sum (some 1e-13 of it; 1e-8 where a top-p keeps thousands of tokens).
//
// A row's result depends on that row alone: sums of doubles have one order, all atomics are on integers.
#pragma once

#include <cstdint>

#include "ops/cuda/stream.h"

namespace tandem::cuda {

inline constexpr std::int32_t kLogprobsMax = 64;  // of likeliest tokens told; rows that ask for more are the host's

// Words of SampleRows::lists.
struct SampleList {
  std::uint32_t begin = 0;
  std::uint32_t count = 0;
};

struct SampleOrder {
  double uniform = 0;     // what decides the draw, in [0, 1)
  float temperature = 0;  // 0: greedy
  float top_p = 1;
  float log_min_p = 0;  // natural log of min_p; used with has_min_p
  std::int32_t has_min_p = 0;
  std::int32_t top_k = 0;           // 0: off
  std::int32_t logprobs = -1;       // -1: none; else at most kLogprobsMax
  std::uint32_t first_logprob = 0;  // of SampleRows::logprobs: the drawn token's, then those of the likeliest
  std::int32_t edited = -1;  // which row of SampleRows::work holds the edited logits; -1: there is nothing to edit
  float repetition = 1;
  float presence = 0;
  float frequency = 0;
  std::int32_t masked = 0;  // only what allowed has may be drawn
  SampleList allowed;       // bits
  SampleList prompt;        // ids; empty without repetition
  SampleList answer;        // ids; empty without penalties
  SampleList bias;          // pairs of an id below vocab and a float's bits, by ascending id
};

enum class SampleOutcome : std::int32_t {
  kDrawn,
  kFailed,   // logits were not finite, or nothing is allowed
  kUnusual,  // penalties, bias or temperature left f32's range: the definition has to say
};

struct SampledRow {
  std::int32_t id;
  SampleOutcome outcome;
};

struct TokenLogprob {
  std::int32_t id;
  float logprob;
};

// Pointers are to memory that the GPU reaches, pinned host memory too: orders and lists are read once.
struct SampleRows {
  const float* logits;  // [rows, vocab]
  std::int64_t stride;  // of logits, in elements
  std::int32_t rows;
  std::int32_t vocab;
  const SampleOrder* orders;    // of each row; null: all are greedy and want nothing else
  const std::uint32_t* lists;   // what orders point into
  float* work;                  // for each edited row 2 · vocab words of the GPU's own memory
  SampledRow* found;            // of each row
  TokenLogprob* logprobs;       // where orders say; only of rows that are drawn
  std::int32_t* ids = nullptr;  // of each row, for what is run next: the drawn token, or token 0; null: nobody asks
};
void run(const SampleRows& op, Stream stream);

}  // namespace tandem::cuda
