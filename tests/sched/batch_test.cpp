// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sched/batch.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

// Sequences of these numbers of rows, with their place as request id; the last row has logits.
std::vector<SequenceRows> sequences_of(const std::vector<std::size_t>& rows) {
  std::vector<SequenceRows> sequences;
  for (std::size_t count : rows) {
    sequences.push_back({.request = sequences.size(),
                         .tokens = std::vector<std::int32_t>(count, 1),
                         .logits_from = static_cast<std::int64_t>(count) - 1});
  }
  return sequences;
}

std::vector<std::vector<RequestId>> dealt(const std::vector<std::size_t>& rows, std::int32_t count) {
  std::vector<std::vector<RequestId>> ids;
  for (const MicroBatch& micro_batch : split_evenly(sequences_of(rows), count)) {
    ids.emplace_back();
    for (const SequenceRows& sequence : micro_batch.sequences) ids.back().push_back(sequence.request);
  }
  return ids;
}

using Ids = std::vector<std::vector<RequestId>>;

TEST(Batch, RowsAreSpreadEvenly) {
  EXPECT_EQ(dealt({1, 1, 1, 1, 1}, 2), (Ids{{0, 2, 4}, {1, 3}}));
  EXPECT_EQ(dealt({1, 1, 8, 1, 1, 1}, 2), (Ids{{2}, {0, 1, 3, 4, 5}}));
  EXPECT_EQ(dealt({3, 5, 4}, 3), (Ids{{1}, {2}, {0}}));
  EXPECT_EQ(dealt({2, 6, 3, 5}, 1), (Ids{{0, 1, 2, 3}}));
}

TEST(Batch, OrderWithinAMicroBatchIsThatOfTheInput) {
  EXPECT_EQ(dealt({1, 2, 3, 4}, 2), (Ids{{0, 3}, {1, 2}}));
}

TEST(Batch, NoMicroBatchIsEmpty) {
  EXPECT_EQ(dealt({1, 1}, 4), (Ids{{0}, {1}}));
  EXPECT_EQ(dealt({}, 4), Ids{});
}

TEST(Batch, CountsRows) {
  Batch batch{.micro_batches = split_evenly(sequences_of({4, 1, 2}), 2)};
  EXPECT_EQ(batch.rows(), 7);
  ASSERT_EQ(batch.micro_batches.size(), 2u);
  EXPECT_EQ(batch.micro_batches[0].rows(), 4);
  EXPECT_EQ(batch.micro_batches[0].logits_rows(), 1);
  EXPECT_EQ(batch.micro_batches[1].rows(), 3);
  EXPECT_EQ(batch.micro_batches[1].logits_rows(), 2);
  EXPECT_FALSE(batch.empty());
  EXPECT_TRUE(Batch{}.empty());
}

}  // namespace
}  // namespace tandem
