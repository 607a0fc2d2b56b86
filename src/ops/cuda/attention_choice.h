// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How attention's kernel is launched. Nothing here changes a bit of the result.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/kv_cache.h"

namespace tandem::cuda {

inline constexpr std::int32_t kPartTokens = 512;

struct AttentionShape {
  std::int64_t rows, heads;
  std::int64_t blocks;  // of threads, when parts are not apart
  std::int64_t v_dim;
  std::int64_t parts_max;       // of the longest context that the block table has room for
  std::int64_t context_tokens;  // of all rows together
};

// Whether each part gets a block of threads of its own: worth it when rows alone leave multiprocessors idle and
// contexts have several parts; possible when the parts fit into so many floats.
bool parts_apart(const AttentionShape& shape, std::int64_t multiprocessors, std::size_t scratch_floats);

// How queries, which are rows times heads, are cut into tiles by attention/tile_attention.
struct TileShape {
  std::int32_t queries;  // of a tile, at most: 16 or 64
  std::int32_t heads;    // of a tile, that share a key head
  std::int32_t chunks;   // tiles for all heads that do
  std::int32_t rows;     // of a tile, at most
  std::int64_t tiles;    // of rows, at most
  bool listed;           // tiles are found on the device; else each row is one
};
// For rows of so many sequences, whose group heads share a key head.
TileShape tile_shape(std::int64_t rows, std::int64_t sequences, std::int32_t group);
// Whether a cache's pages are read in tiles: bf16 keys and values of 64 or of 128.
bool has_tiles(const KvSpec& spec);

// Shared memory of a block of threads that works for so many heads: a page of K and V, queries and probabilities. Rows
// are rounded up to fours and padded.
inline constexpr std::size_t kSharedBytesMax = 227 << 10;
inline constexpr std::int32_t kValueWidthMax = 512;
constexpr std::int32_t padded_width(std::int32_t dim) {
  constexpr std::int32_t kPad = 4;  // elements, against bank conflicts
  return (dim + 3) / 4 * 4 + kPad;
}
inline constexpr std::int32_t kScoreStride = kBlockTokens + 4;  // floats of a head's probabilities, padded likewise
std::size_t attention_shared_bytes(const KvSpec& spec, std::int32_t heads);
// Heads that share a key head and are worked for at once: at most 32, fewer where pages are wide; 0 when a page does
// not fit.
std::int32_t attention_heads_at_once(const KvSpec& spec, std::int32_t group);

// Threads of a block that has so many heads, and how many values of the output each gets: a warp has whole tiles of 16
// columns and 8 heads, a thread four values of each.
int attention_threads(std::int32_t v_dim, std::int32_t heads);
int attention_outputs_per_thread(std::int32_t v_dim, std::int32_t heads);

}  // namespace tandem::cuda
