// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention/decode_schedule.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>
#include <queue>
#include <utility>

#include "base/check.h"
#include "base/format.h"

namespace tandem::cuda {

namespace {

// Blocks that all end at once leave no multiprocessor to kernels beside this one, so they have to gain something.
constexpr double kClearly = .96;

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

using Dealt = std::vector<std::vector<DecodePiece>>;  // of each block, in its order

std::int32_t pages_in(const DecodePiece& piece) {
  return piece.page_end - piece.page_begin;
}

// Microseconds in its block.
double time_of(const DecodePiece& piece, const DecodeCosts& costs) {
  return pages_in(piece) * costs.page_math + costs.piece;
}

// Longest piece first, each to the block that has least to do.
Dealt deal(const DecodeScheduleOptions& options, std::vector<DecodePiece> pieces) {
  std::ranges::stable_sort(pieces, std::greater<>(), pages_in);
  using Load = std::pair<double, std::size_t>;  // microseconds, block
  std::priority_queue<Load, std::vector<Load>, std::greater<>> least;
  Dealt dealt(std::min(static_cast<std::size_t>(options.blocks), pieces.size()));
  for (std::size_t block = 0; block < dealt.size(); ++block) least.push({0, block});
  for (const DecodePiece& piece : pieces) {
    const auto [load, block] = least.top();
    least.pop();
    least.push({load + time_of(piece, options.costs), block});
    dealt[block].push_back(piece);
  }
  return dealt;
}

// Writes down who does what, and how long that should take.
void lay_out(Dealt dealt, const DecodeScheduleOptions& options, std::int64_t pages, DecodeSchedule& schedule) {
  std::erase_if(dealt, [](const std::vector<DecodePiece>& own) { return own.empty(); });
  double busiest = 0;
  std::size_t rounds = 0;
  for (const std::vector<DecodePiece>& own : dealt) {
    double load = 0;
    for (const DecodePiece& piece : own) load += time_of(piece, options.costs);
    busiest = std::max(busiest, load);
    rounds = std::max(rounds, own.size());
    schedule.piece_count += static_cast<int>(own.size());
  }
  schedule.blocks = static_cast<int>(dealt.size());
  schedule.rounds = static_cast<int>(rounds);
  schedule.pieces.clear();
  for (std::size_t round = 0; round < rounds; ++round)
    for (const std::vector<DecodePiece>& own : dealt)
      schedule.pieces.push_back(round < own.size() ? own[round] : DecodePiece{});
  const double busy_share = std::min(1., static_cast<double>(schedule.blocks) / options.costs.blocks_for_memory);
  const double memory = static_cast<double>(pages) * options.costs.page_memory / busy_share + options.costs.piece;
  schedule.estimate = std::max(busiest, memory) + schedule.partials * options.costs.partial;
  if (schedule.partials > 0)
    schedule.estimate += options.costs.merge + schedule.merge_count_max * options.costs.merge_part;
}

DecodeSchedule with_pieces(std::span<const std::int32_t> lengths, const DecodeScheduleOptions& options, int piece_pages,
                           std::int64_t pages) {
  DecodeSchedule schedule;
  schedule.piece_pages = piece_pages;
  schedule.deterministic = options.deterministic;
  cut(lengths, schedule);
  lay_out(deal(options, std::move(schedule.pieces)), options, pages, schedule);
  return schedule;
}

// Blocks that all have room for so many pages, or for a few more where a crumb would be left.
class Rooms {
 public:
  Rooms(int blocks, std::int32_t pages) : dealt_(static_cast<std::size_t>(blocks)) {
    for (std::size_t block = 0; block < dealt_.size(); ++block) most_.push({pages, block});
  }

  // To the block that has most room; false: it would have to be cut.
  bool give_whole(std::int32_t sequence, std::int32_t pages) {
    if (pages - most_.top().first >= kCrumb) return false;
    give({.sequence = sequence, .page_begin = 0, .page_end = pages});
    return true;
  }
  // Cut where rooms end. False: there was too little room.
  bool pour(std::int32_t sequence, std::int32_t pages, DecodeSchedule& schedule) {
    const int first = schedule.partials;
    for (std::int32_t begin = 0; begin < pages;) {
      const std::int32_t room = most_.top().first, left = pages - begin;
      if (room < kCrumb) return false;
      const std::int32_t end = left - room < kCrumb ? pages : begin + room;
      give({.sequence = sequence, .page_begin = begin, .page_end = end, .partial = schedule.partials++});
      begin = end;
    }
    const int count = schedule.partials - first;
    schedule.merges.push_back({sequence, first, count});
    schedule.merge_count_max = std::max(schedule.merge_count_max, count);
    return true;
  }
  const Dealt& dealt() const { return dealt_; }

 private:
  static constexpr std::int32_t kCrumb = 4;

  void give(const DecodePiece& piece) {
    const auto [room, block] = most_.top();
    most_.pop();
    most_.push({room - pages_in(piece), block});
    dealt_[block].push_back(piece);
  }

  std::priority_queue<std::pair<std::int32_t, std::size_t>> most_;  // room, block
  Dealt dealt_;
};

// Every block gets as many pages: whole sequences, longest first, while one has room for them, and the rest poured into
// what room is left. Nothing: crumbs took too much room.
std::optional<DecodeSchedule> with_even_blocks(std::span<const std::int32_t> lengths,
                                               const DecodeScheduleOptions& options, std::int64_t pages) {
  std::vector<std::int32_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  const auto pages_of_sequence = [&](std::int32_t i) { return pages_of(lengths[static_cast<std::size_t>(i)]); };
  std::ranges::stable_sort(order, std::greater<>(), pages_of_sequence);
  const auto try_with = [&](std::int32_t room) -> std::optional<DecodeSchedule> {
    DecodeSchedule schedule;
    Rooms rooms(options.blocks, room);
    std::vector<std::int32_t> rest;
    for (const std::int32_t i : order)
      if (!rooms.give_whole(i, pages_of_sequence(i))) rest.push_back(i);
    for (const std::int32_t i : rest)
      if (!rooms.pour(i, pages_of_sequence(i), schedule)) return std::nullopt;
    lay_out(rooms.dealt(), options, pages, schedule);
    for (const DecodePiece& piece : schedule.pieces)
      schedule.piece_pages = std::max(schedule.piece_pages, pages_in(piece));
    return schedule;
  };
  const auto even = static_cast<std::int32_t>((pages + options.blocks - 1) / options.blocks);
  for (std::int32_t more = 0; more < 4; ++more)
    if (std::optional<DecodeSchedule> schedule = try_with(even + more)) return schedule;
  return std::nullopt;
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
  if (std::optional<DecodeSchedule> even = with_even_blocks(lengths, options, pages);
      even && even->estimate < kClearly * best.estimate)
    best = std::move(*even);
  return best;
}

std::string DecodeSchedule::to_string() const {
  return format("{} blocks, {} pieces of at most {} pages, {} sequences merged from {} partials, about {:.0f} us",
                blocks, piece_count, piece_pages, merges.size(), partials, estimate);
}

}  // namespace tandem::cuda
