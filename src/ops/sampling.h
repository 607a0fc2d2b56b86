// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How the next token is chosen from logits. Filters apply in this order:
//   what is allowed → repetition, presence and frequency penalties, logit bias → temperature → top-k → top-p → min-p
//   → draw
// Temperature 0 takes the largest logit (the lowest id on a tie) after penalties and bias.
// The draw uses random_at(seed, position): the same request gives the same token in any batch, layout or replay.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace tandem {

struct SamplingParams {
  float temperature = 0;         // 0: greedy
  std::int32_t top_k = 0;        // 0: off
  float top_p = 1;               // smallest set whose probability reaches it
  float min_p = 0;               // of the largest probability
  float repetition_penalty = 1;  // divides positive, multiplies negative logits of tokens seen in prompt or answer
  float presence_penalty = 0;    // subtracted once from tokens of the answer
  float frequency_penalty = 0;   // subtracted per occurrence in the answer
  std::uint64_t seed = 0;
  std::int32_t logprobs = -1;  // -1: none; n: the chosen token's and those of the n likeliest, before filters
  std::vector<std::pair<std::int32_t, float>> logit_bias;
};

struct SampleRow {
  const SamplingParams* params;
  std::span<const std::int32_t> prompt;  // tokens of the prompt
  std::span<const std::int32_t> answer;  // tokens generated so far
  std::uint64_t position;                // index of the token being drawn within its sequence
  // Bit i of these words: token i may be drawn; there are none beyond the last word. Empty: all may.
  std::span<const std::uint32_t> allowed = {};
};

struct SampledToken {
  std::int32_t id = -1;
  float logprob = 0;                                         // natural log, of the unfiltered distribution
  std::vector<std::pair<std::int32_t, float>> top_logprobs;  // likeliest first; empty unless asked for
  bool failed = false;  // logits were not finite or nothing allowed; id is -1, only this row's request is concerned
};

// Applies what is allowed, penalties, bias, temperature and filters to logits in place: those filtered out become
// -infinity, and a softmax of the rest is the distribution that is drawn from. Temperature must be above 0.
void filter_logits(const SampleRow& row, std::span<float> logits);

// The whole choice for one row; scratch holds vocab values. This is the definition that every backend follows.
SampledToken sample_row(const SampleRow& row, std::span<const float> logits, std::vector<float>& scratch);

}  // namespace tandem
