// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/sampling/sample_orders.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/rng.h"

namespace tandem::cuda {

namespace {

bool counts_answer(const SamplingParams& p) {
  return p.presence_penalty != 0 || p.frequency_penalty != 0;
}
bool counts_seen(const SamplingParams& p) {
  return p.repetition_penalty != 1;
}

// Words of a mask that say something of the vocabulary.
std::size_t mask_words(const SampleRow& row, std::int32_t vocab) {
  return std::min(row.allowed.size(), static_cast<std::size_t>(vocab + 31) / 32);
}

class ListWriter {
 public:
  explicit ListWriter(std::span<std::uint32_t> words) : words_(words) {}

  template <class T>
  SampleList write(std::span<const T> values) {
    TANDEM_CHECK(used_ + values.size() <= words_.size(), "lists of sampling are longer than what was asked for");
    const SampleList list{static_cast<std::uint32_t>(used_), static_cast<std::uint32_t>(values.size())};
    std::ranges::transform(values, words_.begin() + static_cast<std::ptrdiff_t>(used_),
                           [](T value) { return static_cast<std::uint32_t>(value); });
    used_ += values.size();
    return list;
  }

 private:
  std::span<std::uint32_t> words_;
  std::size_t used_ = 0;
};

// By ascending id, so that one thread finds all that concerns a token; what an id has twice keeps its order.
SampleList write_bias(const SamplingParams& p, std::int32_t vocab, ListWriter& lists) {
  std::vector<std::pair<std::int32_t, float>> bias;
  for (const auto& [id, value] : p.logit_bias)
    if (id >= 0 && id < vocab) bias.emplace_back(id, value);
  std::ranges::stable_sort(bias, {}, &std::pair<std::int32_t, float>::first);
  std::vector<std::uint32_t> words;
  for (const auto& [id, value] : bias) {
    words.push_back(static_cast<std::uint32_t>(id));
    words.push_back(std::bit_cast<std::uint32_t>(value));
  }
  SampleList list = lists.write(std::span<const std::uint32_t>(words));
  list.count /= 2;
  return list;
}

SampleOrder order_of(const SampleRow& row, std::int32_t vocab, ListWriter& lists) {
  const SamplingParams& p = *row.params;
  SampleOrder order;
  order.uniform = p.temperature > 0 ? random_at(p.seed, row.position) : 0;
  order.temperature = p.temperature;
  order.top_p = p.top_p;
  order.has_min_p = p.min_p > 0 ? 1 : 0;
  if (p.min_p > 0) order.log_min_p = std::log(p.min_p);
  order.top_k = std::max(p.top_k, 0);
  order.logprobs = std::max(p.logprobs, -1);
  order.repetition = p.repetition_penalty;
  order.presence = p.presence_penalty;
  order.frequency = p.frequency_penalty;
  order.masked = row.allowed.empty() ? 0 : 1;
  order.allowed = lists.write(row.allowed.first(mask_words(row, vocab)));
  if (counts_seen(p)) order.prompt = lists.write(row.prompt);
  if (counts_seen(p) || counts_answer(p)) order.answer = lists.write(row.answer);
  if (!p.logit_bias.empty()) order.bias = write_bias(p, vocab, lists);
  return order;
}

}  // namespace

bool is_plain(const SampleRow& row) {
  return row.params->temperature == 0 && row.params->logprobs < 0 && !is_edited(row);
}

bool is_edited(const SampleRow& row) {
  const SamplingParams& p = *row.params;
  return !row.allowed.empty() || counts_seen(p) || counts_answer(p) || !p.logit_bias.empty();
}

const char* why_by_definition(const SampleRow& row, std::int32_t work_rows) {
  const SamplingParams& p = *row.params;
  if (work_rows == 0 && is_edited(row)) return "a vocabulary too large to be edited";
  if (p.logprobs > kLogprobsMax) return "more log-probabilities than the kernel tells";
  const bool in_range = std::isfinite(p.temperature) && p.temperature >= 0 && !std::isnan(p.top_p) && p.min_p <= 1 &&
                        std::isfinite(p.repetition_penalty) && p.repetition_penalty > 0 &&
                        std::isfinite(p.presence_penalty) && std::isfinite(p.frequency_penalty);
  if (!in_range) return "a parameter out of range";
  if (!std::ranges::all_of(p.logit_bias, [](const auto& bias) { return std::isfinite(bias.second); }))
    return "a bias that is not finite";
  return nullptr;
}

SampleNeeds needs_of(std::span<const SampleRow> rows, std::int32_t vocab) {
  SampleNeeds needs;
  for (const SampleRow& row : rows) {
    const SamplingParams& p = *row.params;
    needs.words += mask_words(row, vocab) + 2 * p.logit_bias.size();
    if (counts_seen(p)) needs.words += row.prompt.size();
    if (counts_seen(p) || counts_answer(p)) needs.words += row.answer.size();
    if (p.logprobs >= 0 && p.logprobs <= kLogprobsMax) needs.logprobs += static_cast<std::size_t>(p.logprobs) + 1;
  }
  return needs;
}

void write_orders(std::span<const SampleRow> rows, std::int32_t vocab, std::int32_t work_rows,
                  std::span<SampleOrder> orders, std::span<std::uint32_t> words) {
  ListWriter lists(words);
  std::int32_t edited = 0;
  std::uint32_t logprobs = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    orders[i] = {};
    if (why_by_definition(rows[i], work_rows) != nullptr) continue;
    SampleOrder& order = orders[i] = order_of(rows[i], vocab, lists);
    if (is_edited(rows[i])) order.edited = edited++ % work_rows;
    if (order.logprobs < 0) continue;
    order.first_logprob = logprobs;
    logprobs += static_cast<std::uint32_t>(order.logprobs) + 1;
  }
}

std::size_t launch_end(std::span<const SampleOrder> orders, std::size_t begin, std::int32_t work_rows) {
  std::int32_t edited = 0;
  std::size_t end = begin;
  for (; end < orders.size(); ++end)
    if (orders[end].edited >= 0 && edited++ == work_rows) break;
  return end;
}

}  // namespace tandem::cuda
