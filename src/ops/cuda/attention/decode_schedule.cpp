// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention/decode_schedule.h"

#include <algorithm>
#include <queue>

#include "base/check.h"
#include "base/format.h"

namespace tandem::cuda {

namespace {

// Cuts every sequence into equal pieces of at most piece_pages; at multiples of piece_pages when positions are fixed.
void cut(std::span<const std::int32_t> lengths, DecodeSchedule& schedule) {
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const int pages = pages_of(lengths[i]);
    const int count = (pages + schedule.piece_pages - 1) / schedule.piece_pages;
    const auto sequence = static_cast<std::int32_t>(i);
    if (count > 1) schedule.merges.push_back({sequence, schedule.partials, count});
    for (int k = 0; k < count; ++k) {
      const auto bound = [&](int index) {
        if (schedule.deterministic) return std::min(index * schedule.piece_pages, pages);
        return static_cast<int>(static_cast<std::int64_t>(pages) * index / count);
      };
      schedule.pieces.push_back({sequence, bound(k), bound(k + 1), count > 1 ? schedule.partials++ : -1});
    }
    schedule.merge_count_max = std::max(schedule.merge_count_max, count > 1 ? count : 0);
  }
}

// Longest piece first, each to the block that has least to do. Returns what the busiest block has, in microseconds.
double deal(const DecodeScheduleOptions& options, DecodeSchedule& schedule) {
  std::stable_sort(schedule.pieces.begin(), schedule.pieces.end(), [](const DecodePiece& a, const DecodePiece& b) {
    return a.page_end - a.page_begin > b.page_end - b.page_begin;
  });
  schedule.piece_count = static_cast<int>(schedule.pieces.size());
  schedule.blocks = std::min(options.blocks, schedule.piece_count);
  using Load = std::pair<double, int>;  // microseconds, block
  std::priority_queue<Load, std::vector<Load>, std::greater<>> least;
  for (int block = 0; block < schedule.blocks; ++block) least.push({0, block});
  std::vector<std::vector<DecodePiece>> dealt(static_cast<std::size_t>(schedule.blocks));
  double busiest = 0;
  std::size_t rounds = 0;
  for (const DecodePiece& piece : schedule.pieces) {
    auto [load, block] = least.top();
    least.pop();
    load += (piece.page_end - piece.page_begin) * options.costs.page_math + options.costs.piece;
    busiest = std::max(busiest, load);
    least.push({load, block});
    std::vector<DecodePiece>& own = dealt[static_cast<std::size_t>(block)];
    own.push_back(piece);
    rounds = std::max(rounds, own.size());
  }
  schedule.rounds = static_cast<int>(rounds);
  schedule.pieces.clear();
  for (std::size_t round = 0; round < rounds; ++round)
    for (const std::vector<DecodePiece>& own : dealt)
      schedule.pieces.push_back(round < own.size() ? own[round] : DecodePiece{});
  return busiest;
}

DecodeSchedule with_pieces(std::span<const std::int32_t> lengths, const DecodeScheduleOptions& options, int piece_pages,
                           std::int64_t pages) {
  DecodeSchedule schedule;
  schedule.piece_pages = piece_pages;
  schedule.deterministic = options.deterministic;
  cut(lengths, schedule);
  const double busiest = deal(options, schedule);
  const double busy_share = std::min(1., static_cast<double>(schedule.blocks) / options.costs.blocks_for_memory);
  const double memory = static_cast<double>(pages) * options.costs.page_memory / busy_share + options.costs.piece;
  schedule.estimate = std::max(busiest, memory) + schedule.partials * options.costs.partial;
  if (schedule.partials > 0)
    schedule.estimate += options.costs.merge + schedule.merge_count_max * options.costs.merge_part;
  return schedule;
}

}  // namespace

DecodeSchedule schedule_decode(std::span<const std::int32_t> lengths, const DecodeScheduleOptions& options) {
  TANDEM_CHECK(options.blocks > 0, "a GPU without multiprocessors");
  std::int64_t pages = 0;
  int longest = 0;
  for (const std::int32_t length : lengths) {
    TANDEM_CHECK(length > 0, "decode of a sequence without tokens");
    pages += pages_of(length);
    longest = std::max(longest, pages_of(length));
  }
  if (options.deterministic) return with_pieces(lengths, options, DecodeSchedule::kDeterministicPages, pages);
  DecodeSchedule best = with_pieces(lengths, options, std::max(longest, 1), pages);
  for (int piece_pages = 2; piece_pages < longest; piece_pages += std::max(1, piece_pages / 8)) {
    if (pages / piece_pages > 8 * static_cast<std::int64_t>(options.blocks)) continue;  // far too many
    DecodeSchedule next = with_pieces(lengths, options, piece_pages, pages);
    if (next.estimate < best.estimate) best = std::move(next);
  }
  return best;
}

std::string DecodeSchedule::to_string() const {
  return format("{} blocks, {} pieces of at most {} pages, {} sequences merged from {} partials, about {:.0f} us",
                blocks, piece_count, piece_pages, merges.size(), partials, estimate);
}

}  // namespace tandem::cuda
