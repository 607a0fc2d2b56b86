// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention/decode_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

namespace tandem::cuda {
namespace {

using Lengths = std::vector<std::int32_t>;

// Every page of every sequence exactly once; partials of a cut sequence consecutive and in order.
void expect_whole(const Lengths& lengths, const DecodeSchedule& schedule, int blocks) {
  ASSERT_LE(schedule.blocks, blocks);
  ASSERT_EQ(schedule.pieces.size(), static_cast<std::size_t>(schedule.blocks) * schedule.rounds);
  std::map<std::int32_t, std::vector<DecodePiece>> by_sequence;
  for (int block = 0; block < schedule.blocks; ++block)
    for (int round = 0; round < schedule.rounds; ++round) {  // as a block of the kernel goes through them
      const DecodePiece& piece = schedule.pieces[static_cast<std::size_t>(round * schedule.blocks + block)];
      if (piece.page_begin >= piece.page_end) break;
      by_sequence[piece.sequence].push_back(piece);
    }
  ASSERT_EQ(by_sequence.size(), lengths.size());
  std::map<std::int32_t, DecodeMerge> merges;
  for (const DecodeMerge& merge : schedule.merges) merges[merge.sequence] = merge;
  int partials = 0;
  for (auto& [sequence, pieces] : by_sequence) {
    std::ranges::sort(pieces, {}, &DecodePiece::page_begin);
    int next = 0;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      EXPECT_EQ(pieces[i].page_begin, next);
      next = pieces[i].page_end;
      if (pieces.size() == 1) {
        EXPECT_EQ(pieces[i].partial, -1);
      } else {
        EXPECT_EQ(pieces[i].partial, merges.at(sequence).first_partial + static_cast<int>(i));
      }
    }
    EXPECT_EQ(next, (lengths[static_cast<std::size_t>(sequence)] + 63) / 64);
    EXPECT_EQ(merges.contains(sequence), pieces.size() > 1);
    if (pieces.size() > 1) {
      EXPECT_EQ(merges.at(sequence).count, static_cast<int>(pieces.size()));
      partials += static_cast<int>(pieces.size());
    }
  }
  EXPECT_EQ(schedule.partials, partials);
}

TEST(DecodeSchedule, EveryPageIsComputedOnce) {
  std::mt19937 random(1);
  for (int round = 0; round < 60; ++round) {
    Lengths lengths;
    const auto longest = 1u << (1 + random() % 17);
    for (unsigned i = 0; i < 1 + random() % 200; ++i)
      lengths.push_back(static_cast<std::int32_t>(1 + random() % longest));
    const int blocks = static_cast<int>(1 + random() % 140);
    for (const bool deterministic : {false, true})
      expect_whole(lengths, schedule_decode(lengths, {.blocks = blocks, .deterministic = deterministic}), blocks);
  }
}

TEST(DecodeSchedule, NothingIsNothing) {
  const DecodeSchedule schedule = schedule_decode({}, {});
  EXPECT_EQ(schedule.blocks, 0);
  EXPECT_TRUE(schedule.pieces.empty());
}

TEST(DecodeSchedule, CutsOnlyWhereItPays) {
  EXPECT_EQ(schedule_decode(Lengths(128, 4096), {}).partials, 0);  // bound by memory with 128 of 132 blocks
  EXPECT_EQ(schedule_decode(Lengths(256, 2048), {}).partials, 0);
  EXPECT_EQ(schedule_decode(Lengths(64, 8192), {}).blocks, 128);
  EXPECT_GE(schedule_decode(Lengths(1, 32768), {}).blocks, 60);
  EXPECT_GE(schedule_decode(Lengths(8, 32768), {}).blocks, 80);
  EXPECT_EQ(schedule_decode(Lengths(1, 64), {}).partials, 0);
}

// Pages of the block that has most.
int most_pages(const DecodeSchedule& schedule) {
  std::vector<int> pages(static_cast<std::size_t>(schedule.blocks));
  for (std::size_t i = 0; i < schedule.pieces.size(); ++i)
    pages[i % pages.size()] += schedule.pieces[i].page_end - schedule.pieces[i].page_begin;
  return *std::ranges::max_element(pages);
}

// Of a few more sequences than blocks, most stay whole and the others are spread over all.
TEST(DecodeSchedule, BlocksHaveAsManyPagesEach) {
  for (const int sequences : {136, 160, 176, 208, 300}) {
    const DecodeSchedule schedule = schedule_decode(Lengths(static_cast<std::size_t>(sequences), 4096), {});
    const int even = (sequences * 64 + 131) / 132;
    EXPECT_LE(most_pages(schedule), even + 4) << schedule.to_string();
    EXPECT_LE(schedule.partials, 2 * 132 + sequences % 132) << schedule.to_string();
  }
  EXPECT_EQ(schedule_decode(Lengths(264, 4096), {}).partials, 0);
  Lengths ragged;
  for (int i = 0; i < 150; ++i) ragged.push_back(1 + i * 61);
  expect_whole(ragged, schedule_decode(ragged, {}), 132);
  const int pages =
      std::accumulate(ragged.begin(), ragged.end(), 0, [](int sum, int tokens) { return sum + pages_of(tokens); });
  EXPECT_LE(most_pages(schedule_decode(ragged, {})), pages / 132 + 5);
}

TEST(DecodeSchedule, ALongSequenceAmongShortOnesIsSpread) {
  Lengths lengths(40, 256);
  lengths.push_back(65536);
  const DecodeSchedule schedule = schedule_decode(lengths, {});
  EXPECT_GE(schedule.blocks, 80);
  EXPECT_LE(schedule.piece_pages, 24);
}

TEST(DecodeSchedule, FixedCutsDoNotDependOnNeighbours) {
  const auto cuts = [](const Lengths& lengths, int blocks) {
    const DecodeSchedule schedule = schedule_decode(lengths, {.blocks = blocks, .deterministic = true});
    std::vector<std::pair<int, int>> result;
    for (const DecodePiece& piece : schedule.pieces)
      if (piece.sequence == 0 && piece.page_begin < piece.page_end)
        result.emplace_back(piece.page_begin, piece.page_end);
    std::ranges::sort(result);
    return result;
  };
  Lengths lengths{10000};
  const auto alone = cuts(lengths, 132);
  ASSERT_EQ(alone.size(), 5u);
  EXPECT_EQ(alone[1], std::make_pair(32, 64));
  EXPECT_EQ(alone[4], std::make_pair(128, 157));
  for (int i = 0; i < 300; ++i) lengths.push_back(1 + i * 37);
  EXPECT_EQ(cuts(lengths, 20), alone);
}

TEST(DecodeSchedule, SaysWhatItIs) {
  EXPECT_EQ(schedule_decode(Lengths(2, 64), {}).to_string(),
            "2 blocks, 2 pieces of at most 1 pages, 0 sequences merged from 0 partials, about 3 us");
}

}  // namespace
}  // namespace tandem::cuda
