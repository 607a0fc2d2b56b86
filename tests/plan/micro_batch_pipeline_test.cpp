// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/micro_batch_pipeline.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/rng.h"
#include "plan/decode_model.h"

namespace tandem {
namespace {

constexpr std::int32_t kLayers = 40;

// Of stages that are queues: A is busy as long as it takes, F is one kernel.
PipelineStep queues(std::int32_t micro_batches, double a, double to_ffn, double f, double to_attention) {
  return {.micro_batches = micro_batches,
          .layers = {{.count = kLayers,
                      .attention_alone = a,
                      .attention_busy = a,
                      .to_ffn = to_ffn,
                      .to_attention = to_attention,
                      .ffn = {.products = {{.gate_up = f}}}}}};
}

// An FFN that has all pieces, attention that nobody waits for.
PipelineStep pieces(std::int32_t micro_batches, double attention = 1) {
  return {.micro_batches = micro_batches,
          .layers = {{.count = kLayers,
                      .attention_alone = attention,
                      .attention_busy = 0.001,
                      .ffn = {.copy_in = 2,
                              .gather = 3,
                              .products = {{.gate_up = 100, .down = 50}},
                              .copy_out = 4,
                              .combine = 5,
                              .flag = 6,
                              .gap = 1}}}};
}

double layer_of(const PipelineStep& step) {
  return step_seconds(step) / kLayers;
}

TEST(StepSeconds, OfOneMicroBatchAreItsPiecesOneAfterTheOther) {
  EXPECT_NEAR(layer_of(queues(1, 5, 1, 7, 2)), 15, 1e-9);
  // Six gaps: before and after the copy, before the products and after them, after the other copy, before the flag.
  EXPECT_NEAR(layer_of(pieces(1, 10)), 10 + 2 + 3 + 150 + 4 + 5 + 6 + 6 * 1, 1e-9);
  PipelineStep step = pieces(1, 10);
  step.layers.front().ffn.copy_in = step.layers.front().ffn.copy_out = 0;  // with their gaps
  EXPECT_NEAR(layer_of(step), 10 + 3 + 150 + 5 + 6 + 4 * 1, 1e-9);
  step.head_alone = 80;
  EXPECT_NEAR(step_seconds(step), 80 + kLayers * 178, 1e-6);
  step.layers.push_back({.count = 10, .attention_alone = 20, .ffn = {.products = {{.gate_up = 30}}}});
  EXPECT_NEAR(step_seconds(step), 80 + kLayers * 178 + 10 * 50, 1e-6);
}

// The paper's rule: with equal times a layer takes the slowest stage's turns, or the round.
TEST(StepSeconds, OfQueuesAreTheSlowestTurnsOrTheRound) {
  EXPECT_NEAR(layer_of(queues(3, 5, 1, 7, 2)), 3 * 7, 1e-9);
  EXPECT_NEAR(layer_of(queues(2, 5, 1, 7, 2)), 15, 1e-9);
  EXPECT_NEAR(layer_of(queues(4, 5, 1, 7, 9)), 4 * 9, 1e-9);
  EXPECT_NEAR(layer_of(queues(4, 5, 11, 7, 9)), 4 * 11, 1e-9);
  EXPECT_NEAR(layer_of(queues(16, 1, 1, 7, 1)), 16 * 7, 1e-9);
}

TEST(StepSeconds, AreNeverBelowTheStagesRule) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    Rng rng(seed);
    const auto draw = [&](double low, double high) { return low + (high - low) * rng.uniform(); };
    const auto micro_batches = 1 + static_cast<std::int32_t>(rng.below(5));
    const double attention = draw(1, 10), to_ffn = draw(0, 3), products = draw(1, 10), to_attention = draw(0, 3);
    PipelineStep step = queues(micro_batches, attention, to_ffn, products, to_attention);
    PipelineLayers& layer = step.layers.front();
    layer.attention_alone *= draw(1, 1.5);
    FfnPieces& ffn = layer.ffn;
    ffn.gather = draw(0, 1);
    ffn.combine = draw(0, 1);
    ffn.gap = draw(0, 0.3);
    const double f = ffn.gather + ffn.products.front().gate_up + ffn.combine;
    const StageTimes t{.attention = layer.attention_busy,
                       .to_ffn = layer.to_ffn,
                       .ffn = f,
                       .to_attention = layer.to_attention,
                       .attention_alone = layer.attention_alone,
                       .ffn_alone = f};
    const double least = std::max(step.micro_batches * t.slowest(), t.round());
    // A step begins and ends somewhere in a round, and may be shorter by a part of one.
    EXPECT_GE(layer_of(step), least * (1 - 0.3 / kLayers)) << "seed " << seed;
    EXPECT_LE(layer_of(step), step.micro_batches * (t.round() + 4 * ffn.gap)) << "seed " << seed;
  }
}

// Two are done in 2 · 6 beside each other where one alone takes 8.
TEST(StepSeconds, MicroBatchesShareTheAttentionGpu) {
  PipelineStep step = queues(2, 8, 0, 0.5, 0);
  step.layers.front().attention_busy = 6;
  EXPECT_GT(layer_of(step), 2 * 6);
  EXPECT_LT(layer_of(step), 2 * 8);
  step.micro_batches = 8;
  EXPECT_NEAR(layer_of(step), 8 * 6, 0.2);
  step.head_alone = 50;  // and a head takes 40 of it
  step.head_busy = 40;
  EXPECT_NEAR(step_seconds(step), 8 * (kLayers * 6 + 40), 10);
}

// Two micro-batches by hand, from the begin of one's gate-up, when all else has been seen to repeat itself:
//     0  gate-up of the first; the second's results are on their way and ready to be combined at 2
//   100  combine of the second waited for it; then down of the first, 105 to 155
//   112  the second's flag is up, 113 it was at A, 117 its rows have been copied: gather waits for down
//   155  gather, and a gap after it gate-up of the second, at 159; the first's results are ready at 161, too late
// So each has a turn of 159, though kernels take 158 of which 150 are products, and a round alone 178.
TEST(StepSeconds, UrgentKernelsWaitForAProductToEnd) {
  EXPECT_NEAR(layer_of(pieces(2)), 2 * 159, 1e-6);
  // With more of them somebody's gather is always done before it is needed.
  EXPECT_NEAR(layer_of(pieces(8)), 8 * 158, 0.5);
  // Without kernels that wait there are only turns of products.
  PipelineStep free = pieces(2);
  free.layers.front().ffn.gather = free.layers.front().ffn.combine = 0;
  EXPECT_NEAR(layer_of(free), 2 * 150, 1e-6);
  // However long the copy of results is, as long as they are there before gate-up ends.
  PipelineStep late = pieces(2);
  late.layers.front().ffn.copy_out = 90;
  EXPECT_NEAR(layer_of(late), 2 * 159, 1e-6);
}

TEST(StepSeconds, AreInProportionToAllTimes) {
  PipelineStep step = pieces(3, 120);
  step.layers.front().attention_busy = 90;
  step.layers.front().to_ffn = 4;
  step.layers.front().to_attention = 8;
  const double once = step_seconds(step);
  PipelineLayers& layer = step.layers.front();
  for (double* time :
       {&layer.attention_alone, &layer.attention_busy, &layer.to_ffn, &layer.to_attention, &layer.ffn.copy_in,
        &layer.ffn.gather, &layer.ffn.products.front().gate_up, &layer.ffn.products.front().down, &layer.ffn.copy_out,
        &layer.ffn.combine, &layer.ffn.flag, &layer.ffn.gap})
    *time *= 2;
  EXPECT_NEAR(step_seconds(step), 2 * once, 1e-6 * once);
}

// Draws are spread over layers and micro-batches: what one layer takes longer than the mean, others make up for.
TEST(StepSeconds, DrawnProductsTakeTheirMeanWhereFIsTheSlowest) {
  PipelineStep step = queues(3, 2, 0, 10, 0);
  step.layers.front().count = 400;
  step.layers.front().ffn.products = {{.gate_up = 8}, {.gate_up = 9}, {.gate_up = 11}, {.gate_up = 12}};
  EXPECT_NEAR(step_seconds(step) / 400, 30, 0.3);
}

}  // namespace
}  // namespace tandem
