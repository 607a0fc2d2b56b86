// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/slice_trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "slice/side_stamps.h"

namespace tandem {
namespace {

// What one micro-batch after the other takes in a made-up slice, in microseconds.
struct Pace {
  double attention = 60, link = 5, gather = 10, products = 40, sums = 10;
};

// Steps in which attention lanes never disturb each other and the FFN GPU multiplies one after the other.
SliceTrace made_trace(const Pace& pace, std::int32_t micro_batches, std::int32_t steps = 6, std::int32_t layers = 5) {
  SliceTrace trace{.steps = steps, .layers = layers, .micro_batches = micro_batches};
  std::vector<double> returned(static_cast<std::size_t>(micro_batches), 0.);
  double multiplied = 0;
  for (std::int32_t i = 0; i < steps * layers; ++i)
    for (double& from : returned) {
      LayerTimes t{.returned = from, .handed_over = from + pace.attention};
      t.seen = t.handed_over + pace.link;
      t.gathered = t.seen + pace.gather;
      t.begun = std::max(t.gathered, multiplied);
      t.multiplied = multiplied = t.begun + pace.products;
      t.sent = t.multiplied + pace.sums;
      from = t.sent + pace.link;
      trace.times.push_back(t);
    }
  return trace;
}

TEST(SliceTrace, StagesAreWhatTheyWereMadeOf) {
  const TracedStages s = summary_of(made_trace({}, 2)).stages;
  EXPECT_NEAR(s.attention.p50, 60, 1e-9);
  EXPECT_NEAR(s.head.p50, 60, 1e-9);
  EXPECT_NEAR(s.to_ffn.p50, 5, 1e-9);
  EXPECT_NEAR(s.gather.p50, 10, 1e-9);
  EXPECT_NEAR(s.products.p50, 40, 1e-9);
  EXPECT_NEAR(s.combine.p50, 10, 1e-9);
  EXPECT_NEAR(s.ffn.p99, 60, 1e-9);
  EXPECT_NEAR(s.to_attention.p50, 5, 1e-9);
}

TEST(SliceTrace, OneMicroBatchWaitsForEveryStageInTurn) {
  const TraceSummary s = summary_of(made_trace({}, 1));
  // Of 130 microseconds attention works 60, the FFN 60, and each link takes 5.
  EXPECT_NEAR(s.attention.for_other_side, 60. / 130, .02);
  EXPECT_NEAR(s.attention.for_link, 10. / 130, .02);
  EXPECT_NEAR(s.ffn.for_other_side, 60. / 130, .02);
  EXPECT_NEAR(s.ffn.for_link, 10. / 130, .02);
  EXPECT_NEAR(s.products, 40. / 130, .02);
  EXPECT_NEAR(s.ffn.all(), 70. / 130, .02);
}

TEST(SliceTrace, WhoIsSlowIsNamed) {
  EXPECT_EQ(summary_of(made_trace({.attention = 200}, 2)).waited_for(), SlowPart::kAttention);
  EXPECT_EQ(summary_of(made_trace({.products = 200}, 2)).waited_for(), SlowPart::kFfn);
  EXPECT_EQ(summary_of(made_trace({.link = 200}, 2)).waited_for(), SlowPart::kLink);
  // Enough micro-batches and nobody waits: both sides are always at work.
  EXPECT_EQ(summary_of(made_trace({.attention = 300, .products = 100}, 6)).waited_for(), SlowPart::kNone);
}

TEST(SliceTrace, ProductsBeginWhenTheOthersHaveEnded) {
  SliceTrace trace{.steps = 1, .layers = 1, .micro_batches = 3};
  trace.times = {
      {.gathered = 10, .multiplied = 50}, {.gathered = 20, .multiplied = 130}, {.gathered = 15, .multiplied = 90}};
  derive_begun(trace);
  EXPECT_EQ(trace.times[0].begun, 10);
  EXPECT_EQ(trace.times[2].begun, 50);
  EXPECT_EQ(trace.times[1].begun, 90);
}

TEST(SliceTrace, OfOneSideThereAreNoWaits) {
  SliceTrace trace = made_trace({}, 2);
  trace.attention = false;
  const TraceSummary s = summary_of(trace);
  EXPECT_GT(s.stages.products.p50, 0);
  EXPECT_EQ(s.stages.attention.p50, 0);
  EXPECT_EQ(s.stages.to_ffn.p50, 0);
  EXPECT_EQ(s.ffn.all() + s.attention.all(), 0);
}

TEST(SliceTrace, NothingFollowsFromOneStep) {
  EXPECT_EQ(summary_of(made_trace({}, 3, 1)).stages.attention.p50, 0);
  EXPECT_EQ(summary_of({}).waited_for(), SlowPart::kNone);
}

TEST(SliceTrace, EveryStampHasAPlaceOfItsOwn) {
  const StampShape shape{.steps = 3, .layers = 5, .micro_batches = 2, .points = 4};
  std::set<std::size_t> places;
  for (std::int32_t step = 0; step < shape.steps; ++step)
    for (std::int32_t layer = 0; layer < shape.layers; ++layer)
      for (std::int32_t m = 0; m < shape.micro_batches; ++m)
        for (std::int32_t point = 0; point < shape.points; ++point) places.insert(shape.place(step, layer, m, point));
  EXPECT_EQ(places.size(), 3u * 5 * 2 * 4);
  EXPECT_EQ(*places.rbegin(), 3u * 5 * 2 * 4 - 1);
  EXPECT_EQ(shape.place(shape.steps, 0, 0, 0), places.size());
}

}  // namespace
}  // namespace tandem
