// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/sched/fake_model.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/rng.h"
#include "ops/kv_cache.h"

namespace tandem {

namespace {

// The "KV" of a token depends on what came before it, as in a model.
std::uint64_t kv_of(std::uint64_t past, std::int32_t token, std::int64_t position) {
  return mix64(past ^ mix64(static_cast<std::uint64_t>(token) * 1000003 + static_cast<std::uint64_t>(position) + 1));
}
std::uint64_t fold(std::uint64_t past, std::uint64_t kv) {
  return mix64(past + kv + 0x9e3779b97f4a7c15ull);
}
std::int32_t draw(std::uint64_t past, std::int32_t vocab) {
  return static_cast<std::int32_t>(mix64(past ^ 0x5bd1e995) % static_cast<std::uint64_t>(vocab));
}

}  // namespace

FakeModel::FakeModel(std::int64_t blocks, std::int32_t vocab)
    : vocab_(vocab), memory_(static_cast<std::size_t>(blocks * kBlockTokens), 0xbad) {}

std::int32_t FakeModel::next(std::span<const std::int32_t> tokens, std::int32_t vocab) {
  std::uint64_t past = 0;
  for (std::size_t i = 0; i < tokens.size(); ++i)
    past = fold(past, kv_of(past, tokens[i], static_cast<std::int64_t>(i)));
  return draw(past, vocab);
}

std::vector<std::int32_t> FakeModel::answer_alone(const Request& request, std::int64_t context_tokens_max,
                                                  std::int32_t vocab) {
  std::vector<std::int32_t> tokens = request.prompt;
  const std::int64_t size_max = std::min(context_tokens_max, std::ssize(tokens) + request.new_tokens_max);
  while (std::ssize(tokens) < size_max) {
    tokens.push_back(next(tokens, vocab));
    if (std::ranges::find(request.stop_ids, tokens.back()) != request.stop_ids.end()) break;
  }
  return {tokens.begin() + std::ssize(request.prompt), tokens.end()};
}

void FakeModel::zero(std::span<const std::int32_t> blocks) {
  for (std::int32_t block : blocks) std::fill_n(memory_.begin() + std::int64_t{block} * kBlockTokens, kBlockTokens, 0);
}

std::uint64_t& FakeModel::slot(const SequenceRows& rows, std::int64_t position) {
  const std::int64_t block = rows.blocks.at(static_cast<std::size_t>(position / kBlockTokens));
  return memory_.at(static_cast<std::size_t>(block * kBlockTokens + position % kBlockTokens));
}

SequenceResult FakeModel::run(const SequenceRows& rows) {
  const std::int64_t known = std::ssize(rows.prompt) + std::ssize(rows.answer);
  const std::int64_t end = rows.position + rows.rows();
  EXPECT_GE(rows.rows(), 1);
  EXPECT_EQ(rows.drafts, std::max<std::int64_t>(0, end - known));
  EXPECT_EQ(rows.samples, end >= known) << "a token is drawn where the known tokens end";
  EXPECT_EQ(std::ssize(rows.blocks), (end + kBlockTokens - 1) / kBlockTokens);

  SequenceResult result{.request = rows.request, .rows_kept = rows.rows()};
  std::uint64_t past = 0;
  for (std::int64_t position = 0; position < rows.position; ++position) past = fold(past, slot(rows, position));
  bool drafts_agree = true;
  for (std::int64_t row = 0; row < rows.rows(); ++row) {
    const std::int64_t position = rows.position + row;
    const std::int32_t token = rows.tokens[static_cast<std::size_t>(row)];
    if (position < known) {
      const bool in_prompt = position < std::ssize(rows.prompt);
      const auto at = static_cast<std::size_t>(in_prompt ? position : position - std::ssize(rows.prompt));
      EXPECT_EQ(token, in_prompt ? rows.prompt[at] : rows.answer[at]);
    }
    slot(rows, position) = kv_of(past, token, position);  // rejected drafts are written too
    past = fold(past, slot(rows, position));
    if (position + 1 < known || !drafts_agree) continue;
    EXPECT_GE(row, rows.logits_from) << "a row that is drawn from has no logits";
    result.tokens.push_back({.id = draw(past, vocab_)});
    drafts_agree = row + 1 < rows.rows() && rows.tokens[static_cast<std::size_t>(row + 1)] == result.tokens.back().id;
    result.rows_kept = row + 1;
  }
  return result;
}

}  // namespace tandem
