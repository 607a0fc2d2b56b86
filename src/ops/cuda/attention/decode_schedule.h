// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Who computes what in decode attention: sequences are cut into pieces of whole pages, pieces are dealt to thread
// blocks, and pieces of one sequence are merged afterwards. Host code: the CPU knows every length before the step is
// launched.
//
// Deterministic: cut at fixed positions, so that a row's bits do not depend on its neighbours. Otherwise what has the
// smallest estimated time: whole sequences, equal pieces of them, or whole ones beside some that are cut so that every
// block has as many pages.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace tandem::cuda {

struct DecodePiece {
  std::int32_t sequence = 0;
  std::int32_t page_begin = 0, page_end = 0;
  std::int32_t partial = -1;  // where its unnormalised result goes; -1: it is the whole sequence and writes the output
};

struct DecodeMerge {
  std::int32_t sequence;
  std::int32_t first_partial, count;
  std::int32_t reserved = 0;
};

inline constexpr int kDecodePageTokens = 64;

constexpr std::int32_t pages_of(std::int32_t tokens) {
  return (tokens + kDecodePageTokens - 1) / kDecodePageTokens;
}

// What the estimate needs to know of a GPU and a kernel; microseconds. These are of MFA with an FP8 cache, when partial
// results were f32.
struct DecodeCosts {
  double page_memory = 0.0111;  // a page at the whole GPU's bandwidth
  double page_math = 1.4;       // a page in one block
  double piece = 2.0;           // start and end of a piece in its block
  double merge = 12.0;          // the second kernel, which starts when all blocks have ended
  double partial = 0.03;        // writing and reading one partial result, whole GPU
  double merge_part = 0.08;     // for each part of the sequence that has most
  int blocks_for_memory = 120;  // fewer blocks than this do not draw the whole bandwidth
};

struct DecodeScheduleOptions {
  int blocks = 132;  // multiprocessors, or pairs of them
  bool deterministic = false;
  DecodeCosts costs{};
};

struct DecodeSchedule {
  static constexpr int kDeterministicPages = 32;

  std::vector<DecodePiece> pieces;  // [rounds][blocks]; a block is done when it meets one without pages
  std::vector<DecodeMerge> merges;
  int blocks = 0, rounds = 0;
  int piece_count = 0;  // that have pages
  int partials = 0;
  int merge_count_max = 0;  // pieces of one sequence
  int piece_pages = 0;      // longest piece allowed
  bool deterministic = false;
  double estimate = 0;  // microseconds

  std::string to_string() const;
};

// A schedule's arrays on the device, and the scratch that partial results need: bf16 [partials, 64 · 256 for each unit
// of the kernel's output] and [partials, heads, 2], maximum (base 2) and sum of each head.
struct DecodeWork {
  const DecodePiece* pieces;
  const DecodeMerge* merges;
  std::int32_t blocks, rounds, merge_count, merge_count_max;
  bool deterministic;  // partial results are added in one order, whatever merge_count_max is
  std::uint16_t* partials;
  float* partial_stats;
};

// lengths: tokens of each sequence, at least 1.
DecodeSchedule schedule_decode(std::span<const std::int32_t> lengths, const DecodeScheduleOptions& options);

}  // namespace tandem::cuda
