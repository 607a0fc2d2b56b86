// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How heads are divided; what comes out of them is tested with all other attention (operators, bits, pages).
#include "ops/cuda/attention/mfa_attention.h"

#include <gtest/gtest.h>

#include <vector>

namespace tandem::cuda {
namespace {

TEST(MfaUnits, EveryHeadIsInOneUnitOfItsKeyHead) {
  for (const MfaUnits units : {MfaUnits{1, 64}, {1, 1}, {2, 5}, {1, 96}, {3, 64}, {2, 65}, {1, 128}}) {
    std::vector<int> seen(static_cast<std::size_t>(units.kv_heads * units.group));
    for (std::int32_t u = 0; u < units.of_row(); ++u) {
      EXPECT_GE(units.heads(u), 1);
      EXPECT_LE(units.heads(u), MfaUnits::kHeads);
      for (std::int32_t h = units.first_head(u); h < units.first_head(u) + units.heads(u); ++h) {
        EXPECT_EQ(h / units.group, units.kv_head(u));
        ++seen.at(static_cast<std::size_t>(h));
      }
    }
    EXPECT_EQ(seen, std::vector<int>(seen.size(), 1)) << units.kv_heads << " x " << units.group;
  }
}

}  // namespace
}  // namespace tandem::cuda
