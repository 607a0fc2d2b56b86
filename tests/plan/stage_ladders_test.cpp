// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/stage_ladders.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/base/error_of.h"
#include "tests/plan/stage_rows.h"

namespace tandem {
namespace {

using testing::ElementsAre;

TEST(TimeLadder, GoesOnALineBetweenRungs) {
  TimeLadder ladder;
  ladder.add(128, 10);
  ladder.add(32, 4);
  ladder.add(64, 6);
  EXPECT_THAT(ladder.rows(), ElementsAre(32, 64, 128));
  EXPECT_DOUBLE_EQ(ladder.at(32), 4);
  EXPECT_DOUBLE_EQ(ladder.at(48), 5);
  EXPECT_DOUBLE_EQ(ladder.at(96), 8);
  EXPECT_DOUBLE_EQ(ladder.at(128), 10);
  EXPECT_DOUBLE_EQ(ladder.at(1), 4);     // no kernel was seen to be faster
  EXPECT_DOUBLE_EQ(ladder.at(256), 18);  // as between 64 and 128
}

TEST(TimeLadder, NeverFallsInWhateverOrderRungsCome) {
  TimeLadder ladder;
  ladder.add(64, 9);
  ladder.add(32, 10);
  ladder.add(128, 8);
  ladder.add(96, 7);
  ladder.add(160, 20);
  ladder.add(64, 3);  // measured again, and slower the first time
  double last = 0;
  for (int rows = 1; rows < 300; ++rows) {
    EXPECT_GE(ladder.at(rows), last) << rows;
    last = ladder.at(rows);
  }
  EXPECT_DOUBLE_EQ(ladder.at(96), 10);
  EXPECT_DOUBLE_EQ(ladder.at(144), 15);
}

TEST(StageLadders, AddUpTheKernelsOfALayer) {
  const StageLadders ladders(stage_rows(), "k.jsonl");
  ASSERT_TRUE(ladders.has_attention());
  EXPECT_THAT(ladders.ffn_gpus(), ElementsAre(16));
  EXPECT_TRUE(ladders.has_ffn(16));
  EXPECT_FALSE(ladders.has_ffn(8));
  // Eleven kernels of 1 us at 64 rows and 2 us at 128, but attention: 40 and 80 us at 4,096 tokens.
  const StageCost at_64 = ladders.attention(64, 4096, true);
  EXPECT_NEAR(at_64.latency, (10 + 40 + 5) * 1e-6, 1e-12);  // as the layer was measured
  EXPECT_NEAR(at_64.busy, (10 + 40) * 0.5e-6, 1e-12);
  EXPECT_NEAR(ladders.attention(96, 4096, true).latency, (15 + 60 + 7.5) * 1e-6, 1e-12);
  // A dense layer has no router, whose kernel is the eleventh: a seal of a tenth of its time stands in its place.
  EXPECT_NEAR(ladders.attention(64, 4096, false).latency, (9.1 + 40 + 5) * 1e-6, 1e-12);
  EXPECT_NEAR(ladders.head(64).latency, 4 * 1e-6, 1e-12);
  EXPECT_NEAR(ladders.ffn(1024, 16, true).latency, 86e-6, 1e-12);
  EXPECT_NEAR(ladders.ffn(1024, 16, true).busy, 43e-6, 1e-12);
  EXPECT_NEAR(ladders.ffn(1024, 16, false).latency, 6 * 10e-6 + 4 * 1e-6, 1e-12);  // four gaps of six
  EXPECT_NEAR(ladders.ffn(2048, 16, false).busy, 6 * 10e-6, 1e-12);                // with the flag of the routed ones
  EXPECT_THAT(ladders.attention_rows(), ElementsAre(64, 128));
  EXPECT_THAT(ladders.ffn_rows(16), ElementsAre(1024, 2048));
  EXPECT_TRUE(ladders.ffn_rows(8).empty());
}

// Kernels that became part of others are not in newer files, and others may come.
TEST(StageLadders, AddUpWhicheverKernelsAttentionHas) {
  std::vector<StageKernel> rows = stage_rows();
  std::erase_if(rows, [](const StageKernel& k) { return k.kernel == "norm-q" || k.kernel == "quantise-o"; });
  EXPECT_NEAR(StageLadders(rows, "k.jsonl").attention(64, 4096, true).busy, (8 + 40) * 0.5e-6, 1e-12);
  for (const double batch : {64., 128.}) rows.push_back({"attention", "new", batch, 4096, 0, 3e-6, 3e-6});
  EXPECT_NEAR(StageLadders(rows, "k.jsonl").attention(64, 4096, true).busy, (8 + 40) * 0.5e-6 + 3e-6, 1e-12);
}

TEST(StageLadders, AttentionFollowsTheContext) {
  const StageLadders ladders(stage_rows(), "k.jsonl");
  const double others = 15e-6;
  EXPECT_NEAR(ladders.attention(64, 8192, true).latency, others + 80e-6, 1e-12);    // measured
  EXPECT_NEAR(ladders.attention(64, 6144, true).latency, others + 60e-6, 1e-12);    // between
  EXPECT_NEAR(ladders.attention(64, 16384, true).latency, others + 160e-6, 1e-12);  // beyond
  EXPECT_NEAR(ladders.attention(64, 1024, true).latency, others + 40e-6, 1e-12);    // no less than the shortest
  // Of a single context times are in proportion to it.
  std::vector<StageKernel> one = stage_rows();
  std::erase_if(one, [](const StageKernel& k) { return k.context == 8192; });
  EXPECT_NEAR(StageLadders(one, "k.jsonl").attention(64, 16384, true).latency, others + 160e-6, 1e-12);
}

// Of the longest context there is memory for few rows only, and its ladder may end flat.
TEST(StageLadders, ALongerContextNeverTakesLess) {
  std::vector<StageKernel> rows = stage_rows();
  for (StageKernel& k : rows)
    if (k.kernel == "mfa-decode-fp8" && k.context == 8192) k.seconds = k.seconds_beside = 90e-6;
  const StageLadders ladders(rows, "k.jsonl");
  for (const double batch : {64., 256., 1024.}) {
    double last = 0;
    for (int context = 1024; context < 40'000; context += 512) {
      const double now = ladders.attention(batch, context, true).latency;
      EXPECT_GE(now, last) << batch << " rows of " << context;
      last = now;
    }
  }
}

TEST(StageLadders, TellWhatAnFfnLayerIsMadeOf) {
  const StageLadders ladders(stage_rows(), "k.jsonl");
  const FfnPieces routed = ladders.ffn_pieces(2048, 16, true), dense = ladders.ffn_pieces(2048, 16, false);
  EXPECT_NEAR(routed.copy_in, 20e-6, 1e-12);
  EXPECT_NEAR(routed.gather, 40e-6, 1e-12);  // with the plan of its rows
  EXPECT_NEAR(routed.copy_out, 20e-6, 1e-12);
  EXPECT_NEAR(routed.combine, 20e-6, 1e-12);
  EXPECT_NEAR(routed.flag, 20e-6, 1e-12);
  EXPECT_NEAR(routed.gap, 2e-6, 1e-12);
  EXPECT_EQ(dense.copy_in, 0);
  EXPECT_EQ(dense.copy_out, 0);
  EXPECT_NEAR(dense.gather, 40e-6, 1e-12);
  EXPECT_NEAR(dense.gap, 2e-6, 1e-12);
  const FfnPieces::Products products = ladders.ffn_products(1536, 16, true);
  EXPECT_NEAR(products.gate_up, 15e-6, 1e-12);
  EXPECT_NEAR(products.down, 15e-6, 1e-12);
  // A layer that was measured faster than its kernels one by one has no gaps.
  std::vector<StageKernel> rows = stage_rows();
  for (StageKernel& k : rows)
    if (k.stage == "ffn" && k.kernel == "layer") k.seconds /= 2;
  const StageLadders fast(rows, "k.jsonl");
  EXPECT_EQ(fast.ffn_pieces(1024, 16, true).gap, 0);
  EXPECT_NEAR(fast.ffn(1024, 16, true).latency, 80e-6, 1e-12);
}

TEST(StageLadders, CompanyOnAnAttentionGpuCostsNoMoreThanTurns) {
  std::vector<StageKernel> rows = stage_rows();
  for (StageKernel& k : rows)
    if (k.kernel == "mfa-decode-fp8" || k.kernel == "dense-gather") k.seconds_beside = 2 * k.seconds;
  const StageLadders ladders(rows, "k.jsonl");
  EXPECT_NEAR(ladders.attention(64, 4096, true).busy, 5e-6 + 40e-6, 1e-12);
  EXPECT_NEAR(ladders.ffn(1024, 16, false).busy, 5 * 5e-6 + 20e-6, 1e-12);  // what stands beside products may
}

TEST(StageLadders, WhatWasNotMeasuredIsNotThere) {
  const StageLadders none(std::vector<StageKernel>{}, "k.jsonl");
  EXPECT_FALSE(none.has_attention());
  EXPECT_TRUE(none.ffn_gpus().empty());
  EXPECT_TRUE(none.attention_rows().empty());
}

TEST(StageLadders, AStageThatIsNotWholeIsRefused) {
  const auto error_without = [](const char* kernel, double rows = 0) {
    std::vector<StageKernel> rows_left = stage_rows();
    std::erase_if(rows_left, [&](const StageKernel& k) { return k.kernel == kernel && (rows == 0 || k.rows == rows); });
    return error_of([&] { StageLadders(rows_left, "k.jsonl"); }).message();
  };
  EXPECT_EQ(error_without("q-up"), "k.jsonl: stage attention has no row of the kernel q-up");
  EXPECT_EQ(error_without("layer"), "k.jsonl: stage attention has no row of the kernel layer");
  EXPECT_EQ(error_without("seal"), "k.jsonl: stage attention has no row of the kernel seal");
  EXPECT_EQ(error_without("head"), "k.jsonl: stage head has no row of the kernel head");
  EXPECT_EQ(error_without("dense-down"), "k.jsonl: stage ffn has no row of the kernel dense-down");
  EXPECT_EQ(error_without("gather", 2048),
            "k.jsonl: the kernel gather of stage ffn was measured at one batch, two are needed");
  EXPECT_EQ(
      error_without("mfa-decode-fp8", 64),
      "k.jsonl: the kernel mfa-decode-fp8 of stage attention was measured at one batch, two are needed at context "
      "4096");
}

}  // namespace
}  // namespace tandem
