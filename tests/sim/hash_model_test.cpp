// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sim/hash_model.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

constexpr std::int32_t kVocab = 1000;

// Rows of one sequence that starts at its first token; the last row draws.
SequenceRows rows_of(std::vector<std::int32_t> tokens, std::vector<std::int32_t> blocks) {
  SequenceRows rows{.request = 1, .tokens = std::move(tokens), .samples = true, .blocks = std::move(blocks)};
  rows.logits_from = rows.rows() - 1;
  return rows;
}

std::vector<std::int32_t> alone(const std::vector<std::int32_t>& prompt, std::int32_t new_tokens) {
  return HashModel::answer_alone({.prompt = prompt, .new_tokens_max = new_tokens}, 500, kVocab);
}

TEST(HashModel, ChunksAndBlocksDoNotChangeTheAnswer) {
  std::vector<std::int32_t> prompt(100);
  for (std::size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<std::int32_t>(i * i % kVocab);
  const std::int32_t expected = alone(prompt, 1).at(0);

  HashModel model(8, kVocab);
  EXPECT_EQ(model.run(rows_of(prompt, {3, 5})).tokens.at(0).id, expected);
  for (const std::size_t cut : {1u, 63u, 64u, 65u, 99u}) {
    SequenceRows first = rows_of({prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(cut)}, {6, 1});
    first.samples = false;
    EXPECT_TRUE(model.run(first).tokens.empty());
    SequenceRows second = rows_of({prompt.begin() + static_cast<std::ptrdiff_t>(cut), prompt.end()}, {6, 1});
    second.position = static_cast<std::int64_t>(cut);
    EXPECT_EQ(model.run(second).tokens.at(0).id, expected) << cut;
  }
}

TEST(HashModel, AWrongBlockGivesAnotherAnswer) {
  std::vector<std::int32_t> prompt(65, 9);
  HashModel model(8, kVocab);
  SequenceRows first = rows_of({prompt.begin(), prompt.end() - 1}, {2, 3});
  first.samples = false;
  model.run(first);
  SequenceRows last = rows_of({9}, {2, 3});
  last.position = 64;
  EXPECT_EQ(model.run(last).tokens.at(0).id, alone(prompt, 1).at(0));
  last.blocks = {4, 3};
  EXPECT_NE(model.run(last).tokens.at(0).id, alone(prompt, 1).at(0));
  const std::vector<std::int32_t> zeroed{2};
  model.zero(zeroed);
  last.blocks = {2, 3};
  EXPECT_NE(model.run(last).tokens.at(0).id, alone(prompt, 1).at(0));
}

TEST(HashModel, DraftsAreKeptUpToTheFirstWrongOne) {
  const std::vector<std::int32_t> answer = alone({1, 2, 3}, 4);
  HashModel model(2, kVocab);
  SequenceRows rows = rows_of({1, 2, 3, answer[0], answer[1], (answer[2] + 1) % kVocab, 5}, {0});
  rows.drafts = 4;
  rows.logits_from = 2;
  const SequenceResult result = model.run(rows);
  EXPECT_EQ(result.rows_kept, 5);
  ASSERT_EQ(result.tokens.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(result.tokens[i].id, answer[i]);
}

TEST(HashModel, AnswersEndAtTheContextAndAtAStopToken) {
  EXPECT_EQ(HashModel::answer_alone({.prompt = {1, 2, 3}, .new_tokens_max = 50}, 10, kVocab).size(), 7u);
  const std::vector<std::int32_t> answer = alone({1, 2, 3}, 6);
  const Request stopped{.prompt = {1, 2, 3}, .new_tokens_max = 6, .stop_ids = {answer[2]}};
  EXPECT_EQ(HashModel::answer_alone(stopped, 500, kVocab).size(), 3u);
}

}  // namespace
}  // namespace tandem
