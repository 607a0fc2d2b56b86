// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How heads are divided; what comes out of them is tested with all other attention (operators, bits, pages).
#include "ops/cuda/attention/mla_attention.h"

#include <gtest/gtest.h>

#include <vector>

namespace tandem::cuda {
namespace {

TEST(MlaUnits, EveryHeadIsInOneUnit) {
  for (const std::int32_t heads : {1, 16, 32, 33, 64, 100, 128}) {
    const MlaUnits units{heads};
    std::vector<int> seen(static_cast<std::size_t>(heads));
    for (std::int32_t u = 0; u < units.of_row(); ++u) {
      EXPECT_GE(units.heads(u), 1);
      EXPECT_LE(units.heads(u), MlaUnits::kHeads);
      for (std::int32_t h = 0; h < units.heads(u); ++h) ++seen.at(static_cast<std::size_t>(units.first_head(u) + h));
    }
    EXPECT_EQ(seen, std::vector<int>(seen.size(), 1)) << heads;
  }
}

TEST(MlaUnits, BothTermsOfAllHeadsFillATile) {
  std::vector<int> seen(MlaPage::kTokens);
  for (int h = 0; h < MlaUnits::kHeads; ++h)
    for (const int term : {0, 1}) ++seen.at(static_cast<std::size_t>(MlaUnits::row(h) + term * MlaUnits::kTermRows));
  EXPECT_EQ(seen, std::vector<int>(seen.size(), 1));
}

}  // namespace
}  // namespace tandem::cuda
