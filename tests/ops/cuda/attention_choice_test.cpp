// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention_choice.h"

#include <gtest/gtest.h>

namespace tandem::cuda {
namespace {

constexpr std::int64_t kMultiprocessors = 132;
constexpr std::size_t kPlenty = std::size_t{1} << 40;

AttentionShape one_long_row() {
  return {.rows = 1, .heads = 64, .blocks = 2, .v_dim = 256, .parts_max = 64, .context_tokens = 32768};
}

TEST(AttentionChoice, OneLongContextIsSpreadOverTheGpu) {
  EXPECT_TRUE(parts_apart(one_long_row(), kMultiprocessors, kPlenty));
}

TEST(AttentionChoice, ManyRowsKeepTheGpuBusyByThemselves) {
  AttentionShape shape = one_long_row();
  shape.rows = 132;
  shape.blocks *= shape.rows;
  shape.context_tokens *= shape.rows;
  EXPECT_FALSE(parts_apart(shape, kMultiprocessors, kPlenty));
}

TEST(AttentionChoice, ShortContextsHaveOnePart) {
  AttentionShape shape = one_long_row();
  shape.context_tokens = kPartTokens;
  EXPECT_FALSE(parts_apart(shape, kMultiprocessors, kPlenty));
  shape.context_tokens = kPartTokens + 1;
  EXPECT_TRUE(parts_apart(shape, kMultiprocessors, kPlenty));
}

TEST(AttentionChoice, PartsApartMustFit) {
  const std::size_t floats = 64 * 64 * 258;
  EXPECT_TRUE(parts_apart(one_long_row(), kMultiprocessors, floats));
  EXPECT_FALSE(parts_apart(one_long_row(), kMultiprocessors, floats - 1));
}

TEST(AttentionChoice, TilesHaveAllRowsAndHeads) {
  for (const std::int64_t rows : {1, 7, 64, 300})
    for (const std::int64_t sequences : {1, 2, 64})
      for (const std::int32_t group : {1, 3, 4, 7, 16, 40, 100}) {
        if (rows < sequences) continue;
        const TileShape shape = tile_shape(rows, sequences, group);
        EXPECT_GE(shape.heads * shape.chunks, group);
        EXPECT_GE(shape.rows, 1);
        EXPECT_LE(shape.rows * shape.heads, shape.queries);
        // At worst all sequences but one have one row.
        EXPECT_GE(shape.tiles, sequences - 1 + (rows - sequences + shape.rows) / shape.rows);
      }
}

TEST(AttentionChoice, RowsOfManySequencesAreTilesThemselves) {
  EXPECT_FALSE(tile_shape(64, 64, 4).listed);
  EXPECT_FALSE(tile_shape(64, 60, 4).listed);
  EXPECT_TRUE(tile_shape(64, 1, 4).listed);
  EXPECT_TRUE(tile_shape(300 + 64, 301, 1).listed);  // a prompt beside many that decode
}

TEST(AttentionChoice, EveryColumnOfEveryHeadHasAThread) {
  for (const std::int32_t v_dim : {1, 12, 48, 64, 128, 256, 257, 512}) {
    for (const std::int32_t heads : {1, 3, 8, 32}) {
      const int warps = attention_threads(v_dim, heads) / 32, tiles = (v_dim + 15) / 16 * ((heads + 7) / 8);
      EXPECT_GE(warps * attention_outputs_per_thread(v_dim, heads), 4 * tiles) << v_dim << " wide, " << heads;
      EXPECT_LE(attention_outputs_per_thread(v_dim, heads), 32);
    }
  }
}

}  // namespace
}  // namespace tandem::cuda
