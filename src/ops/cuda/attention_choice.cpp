// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention_choice.h"

#include <algorithm>

namespace tandem::cuda {

namespace {

std::int32_t output_tiles(std::int32_t v_dim, std::int32_t heads) {
  return (v_dim + 15) / 16 * ((heads + 7) / 8);
}

}  // namespace

bool parts_apart(const AttentionShape& s, std::int64_t multiprocessors, std::size_t scratch_floats) {
  constexpr std::int64_t kBlocksPerMultiprocessor = 2;
  if (s.parts_max == 1 || s.context_tokens <= s.rows * kPartTokens) return false;
  if (s.blocks >= kBlocksPerMultiprocessor * multiprocessors) return false;
  return static_cast<std::size_t>(s.rows * s.heads * s.parts_max * (s.v_dim + 2)) <= scratch_floats;
}

bool has_tiles(const KvSpec& spec) {
  return spec.dtype == DType::kBF16 && !spec.v_in_k && spec.k_dim == spec.v_dim &&
         (spec.k_dim == 64 || spec.k_dim == 128);
}

TileShape tile_shape(std::int64_t rows, std::int64_t sequences, std::int32_t group) {
  constexpr std::int32_t kFew = 16, kMany = 64;
  constexpr std::int64_t kEnough = 32;  // queries beyond one row of each sequence that make use of tiles of many
  TileShape shape{};
  shape.listed = (rows - sequences) * std::min(group, kFew) >= kEnough;
  shape.queries = shape.listed ? kMany : kFew;
  shape.heads = std::min(group, shape.queries);
  shape.chunks = (group + shape.heads - 1) / shape.heads;
  shape.rows = shape.listed ? shape.queries / shape.heads : 1;
  shape.tiles = shape.listed ? std::min(rows, rows / shape.rows + sequences) : rows;
  return shape;
}

std::size_t attention_shared_bytes(const KvSpec& spec, std::int32_t heads) {
  const std::size_t element = spec.has_scales() ? sizeof(float) : traits(spec.dtype).block_bytes;  // codes are widened
  const std::size_t page = padded_width(spec.k_dim) + (spec.v_in_k ? 0 : padded_width(spec.v_dim));
  constexpr std::size_t kNumbersPerHead = 7;  // largest score, sum and factors
  return element * kBlockTokens * page +
         sizeof(float) * static_cast<std::size_t>(heads) * (padded_width(spec.k_dim) + kScoreStride + kNumbersPerHead);
}

std::int32_t attention_heads_at_once(const KvSpec& spec, std::int32_t group) {
  for (std::int32_t heads = 32; heads > 0; heads /= 2)
    if (attention_shared_bytes(spec, std::min(heads, group)) <= kSharedBytesMax) return std::min(heads, group);
  return 0;
}

int attention_threads(std::int32_t v_dim, std::int32_t heads) {
  return output_tiles(v_dim, heads) > 32 ? 512 : 256;
}

int attention_outputs_per_thread(std::int32_t v_dim, std::int32_t heads) {
  const int warps = attention_threads(v_dim, heads) / 32;
  return (output_tiles(v_dim, heads) + warps - 1) / warps * 4;
}

}  // namespace tandem::cuda
