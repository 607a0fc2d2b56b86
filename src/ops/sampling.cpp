// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The definition of sampling; the order of filters is stated in sampling.h.
#include "ops/sampling.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

#include "base/rng.h"

namespace tandem {

namespace {

constexpr float kOut = -std::numeric_limits<float>::infinity();

// Without an early end, which would keep a compiler from looking at several at once. Not finite: all exponent bits set.
bool all_finite(std::span<const float> values) {
  constexpr std::uint32_t kExponent = 0x7f800000u;
  std::uint32_t found = 0;
  for (const float value : values) found |= (std::bit_cast<std::uint32_t>(value) & kExponent) == kExponent;
  return found == 0;
}

// The first of the largest values, which is looked for once it is known: a maximum has no place to carry along, and is
// taken in independent chains.
std::int32_t first_largest(std::span<const float> values) {
  constexpr std::size_t kChains = 16;
  std::array<float, kChains> largest;
  largest.fill(kOut);
  std::size_t i = 0;
  for (; i + kChains <= values.size(); i += kChains)
    for (std::size_t j = 0; j < kChains; ++j) largest[j] = largest[j] < values[i + j] ? values[i + j] : largest[j];
  for (; i < values.size(); ++i) largest[0] = std::max(largest[0], values[i]);
  const float most = *std::ranges::max_element(largest);
  return static_cast<std::int32_t>(std::ranges::find(values, most) - values.begin());
}

void apply_allowed(std::span<const std::uint32_t> allowed, std::span<float> logits) {
  if (allowed.empty()) return;
  for (std::size_t i = 0; i < logits.size(); ++i)
    if (i / 32 >= allowed.size() || (allowed[i / 32] >> (i % 32) & 1) == 0) logits[i] = kOut;
}

void apply_penalties(const SampleRow& row, std::span<float> logits) {
  const SamplingParams& p = *row.params;
  const auto size = static_cast<std::int64_t>(logits.size());
  if (p.repetition_penalty != 1) {
    std::vector<std::int32_t> seen(row.prompt.begin(), row.prompt.end());
    seen.insert(seen.end(), row.answer.begin(), row.answer.end());
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    for (const std::int32_t id : seen) {
      if (id < 0 || id >= size) continue;
      logits[id] = logits[id] > 0 ? logits[id] / p.repetition_penalty : logits[id] * p.repetition_penalty;
    }
  }
  if (p.presence_penalty != 0 || p.frequency_penalty != 0) {
    std::vector<std::int32_t> said(row.answer.begin(), row.answer.end());
    std::sort(said.begin(), said.end());
    for (std::size_t i = 0; i < said.size();) {
      std::size_t end = i;
      while (end < said.size() && said[end] == said[i]) ++end;
      if (said[i] >= 0 && said[i] < size)
        logits[said[i]] -= p.presence_penalty + p.frequency_penalty * static_cast<float>(end - i);
      i = end;
    }
  }
  for (const auto& [id, bias] : p.logit_bias)
    if (id >= 0 && id < size) logits[id] += bias;
}

// Ids that are still in, likeliest first; a tie goes to the lower id.
std::vector<std::int32_t> sorted_ids(std::span<const float> logits, std::size_t count) {
  std::vector<std::int32_t> ids;
  ids.reserve(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i)
    if (logits[i] != kOut) ids.push_back(static_cast<std::int32_t>(i));
  count = std::min(count, ids.size());
  const auto before = [&](std::int32_t a, std::int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end(), before);
  ids.resize(count);
  return ids;
}

void keep_only(std::span<float> logits, std::span<const std::int32_t> ids) {
  std::vector<float> kept(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) kept[i] = logits[ids[i]];
  std::fill(logits.begin(), logits.end(), kOut);
  for (std::size_t i = 0; i < ids.size(); ++i) logits[ids[i]] = kept[i];
}

// Keeps the smallest set of likeliest tokens whose probability reaches top_p. The set is small as a rule, so ever more
// of the likeliest are sorted until it is found, instead of the whole vocabulary at once.
void filter_top_p(std::span<float> logits, float top_p) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float value : logits) total += std::exp(static_cast<double>(value) - top);
  for (std::size_t sorted = 64;; sorted *= 8) {
    const std::vector<std::int32_t> ids = sorted_ids(logits, sorted);
    double reached = 0;
    std::size_t count = 0;
    while (count < ids.size() && reached < top_p * total)
      reached += std::exp(static_cast<double>(logits[ids[count++]]) - top);
    if (reached < top_p * total && sorted < logits.size()) continue;
    return keep_only(logits, std::span(ids).first(std::max<std::size_t>(count, 1)));
  }
}

void apply_temperature_and_filters(const SamplingParams& p, std::span<float> logits) {
  for (float& value : logits) value /= p.temperature;
  if (p.top_k > 0 && p.top_k < static_cast<std::int64_t>(logits.size()))
    keep_only(logits, sorted_ids(logits, static_cast<std::size_t>(p.top_k)));
  if (p.top_p < 1) filter_top_p(logits, p.top_p);
  if (p.min_p > 0) {
    const float floor = *std::max_element(logits.begin(), logits.end()) + std::log(p.min_p);
    for (float& value : logits)
      if (value < floor) value = kOut;
  }
}

std::int32_t draw(std::span<const float> logits, double uniform) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float value : logits) total += std::exp(static_cast<double>(value) - top);
  double rest = uniform * total;
  std::int32_t last = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] == kOut) continue;
    last = static_cast<std::int32_t>(i);
    rest -= std::exp(static_cast<double>(logits[i]) - top);
    if (rest < 0) break;
  }
  return last;
}

}  // namespace

void filter_logits(const SampleRow& row, std::span<float> logits) {
  apply_allowed(row.allowed, logits);
  apply_penalties(row, logits);
  apply_temperature_and_filters(*row.params, logits);
}

SampledToken sample_row(const SampleRow& row, std::span<const float> logits, std::vector<float>& scratch) {
  const SamplingParams& p = *row.params;
  SampledToken token;
  if (!all_finite(logits)) {
    token.failed = true;
    return token;
  }
  scratch.assign(logits.begin(), logits.end());
  apply_allowed(row.allowed, scratch);
  if (std::ranges::all_of(scratch, [](float value) { return value == kOut; })) {
    token.failed = true;
    return token;
  }
  apply_penalties(row, scratch);
  if (p.temperature > 0) {
    apply_temperature_and_filters(p, scratch);
    token.id = draw(scratch, random_at(p.seed, row.position));
  } else {
    token.id = first_largest(scratch);
  }
  if (p.logprobs >= 0) {
    const float top = *std::max_element(logits.begin(), logits.end());
    double total = 0;
    for (const float value : logits) total += std::exp(static_cast<double>(value) - top);
    const double shift = top + std::log(total);
    token.logprob = static_cast<float>(logits[token.id] - shift);
    for (const std::int32_t id : sorted_ids(logits, static_cast<std::size_t>(p.logprobs)))
      token.top_logprobs.emplace_back(id, static_cast<float>(logits[id] - shift));
  }
  return token;
}

}  // namespace tandem
