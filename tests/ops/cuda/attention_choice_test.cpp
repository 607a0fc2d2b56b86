// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention_choice.h"

#include <gtest/gtest.h>

namespace tandem::cuda {
namespace {

constexpr std::int64_t kMultiprocessors = 132;
constexpr std::size_t kPlenty = std::size_t{1} << 40;

AttentionShape one_long_row() {
  return {.rows = 1, .heads = 64, .blocks_per_row = 2, .v_dim = 256, .parts_max = 64, .context_tokens = 32768};
}

TEST(AttentionChoice, OneLongContextIsSpreadOverTheGpu) {
  EXPECT_TRUE(parts_apart(one_long_row(), kMultiprocessors, kPlenty));
}

TEST(AttentionChoice, ManyRowsKeepTheGpuBusyByThemselves) {
  AttentionShape shape = one_long_row();
  shape.rows = 132;
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
