// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/busiest_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/rng.h"

namespace tandem {
namespace {

struct Drawn {
  double mean = 0, deviation = 0;
};

// By drawing them: rows that choose experts at random, GPUs that hold them, the fullest.
Drawn by_drawing(std::int32_t experts, std::int32_t chosen, std::int32_t gpus, int rows, int draws) {
  Rng rng(7);
  std::vector<double> most;
  for (int i = 0; i < draws; ++i) {
    std::vector<int> of_gpu(static_cast<std::size_t>(gpus));
    std::vector<std::int32_t> left(static_cast<std::size_t>(experts));
    std::iota(left.begin(), left.end(), 0);
    for (int row = 0; row < rows; ++row)
      for (std::int32_t k = 0; k < chosen; ++k) {
        const std::size_t at = static_cast<std::size_t>(k) + rng.below(static_cast<std::uint64_t>(experts - k));
        std::swap(left[static_cast<std::size_t>(k)], left[at]);
        ++of_gpu[static_cast<std::size_t>(left[static_cast<std::size_t>(k)] * gpus / experts)];
      }
    most.push_back(*std::ranges::max_element(of_gpu));
  }
  Drawn d{.mean = std::accumulate(most.begin(), most.end(), 0.0) / draws};
  for (const double x : most) d.deviation += (x - d.mean) * (x - d.mean) / draws;
  d.deviation = std::sqrt(d.deviation);
  return d;
}

TEST(BusiestRows, HaveTheMeanAndSpreadOfDrawnOnes) {
  for (const std::int32_t gpus : {8, 16, 24}) {
    const BusiestRows busiest(48, 3, gpus, 64);
    const Drawn drawn = by_drawing(48, 3, gpus, 2048, 400);
    EXPECT_NEAR(busiest.mean(2048), drawn.mean, 0.01 * drawn.mean) << gpus;
    // N' rows have on average what was drawn.
    double variance = 0;
    for (const double rows : busiest.drawn(2048)) variance += std::pow(busiest.mean(rows) - busiest.mean(2048), 2) / 64;
    EXPECT_NEAR(std::sqrt(variance), drawn.deviation, 0.1 * drawn.deviation) << gpus;
  }
}

TEST(BusiestRows, AreSpreadAroundTheBatch) {
  const std::vector<double> all = BusiestRows(48, 3, 16, 16).drawn(2048);
  ASSERT_EQ(all.size(), 16u);
  EXPECT_TRUE(std::ranges::is_sorted(all));
  EXPECT_LT(all.front(), 2048);
  EXPECT_GT(all.back(), 2048);
  EXPECT_NEAR(std::accumulate(all.begin(), all.end(), 0.0) / 16, 2048, 2);
  // Relatively less of larger batches.
  const std::vector<double> more = BusiestRows(48, 3, 16, 16).drawn(8 * 2048);
  EXPECT_LT(more.back() / (8 * 2048), all.back() / 2048);
}

TEST(BusiestRows, OfWhatIsNotDrawnAreThoseOfTheBatch) {
  for (const double rows : BusiestRows(8, 8, 8, 4).drawn(1000)) EXPECT_NEAR(rows, 1000, 1e-6);  // every row all experts
  for (const double rows : BusiestRows(8, 2, 1, 4).drawn(1000)) EXPECT_NEAR(rows, 1000, 1e-6);  // one GPU all experts
  for (const double rows : BusiestRows(8, 2, 8, 4).drawn(0)) EXPECT_EQ(rows, 0);
}

}  // namespace
}  // namespace tandem
