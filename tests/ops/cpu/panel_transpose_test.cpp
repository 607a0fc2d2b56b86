// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/panel_transpose.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/rng.h"

namespace tandem::cpu {
namespace {

TEST(PanelTranspose, PutsEveryElementInItsPlaceAndNothingElse) {
  constexpr std::size_t kGuard = 64;
  Rng rng(1);
  for (const std::size_t size : {1, 2, 4}) {
    for (const std::int64_t k : {0, 1, 3, 15, 16, 17, 64, 100, 257}) {
      SCOPED_TRACE(testing::Message() << size << " bytes, k " << k);
      // Rows lie anywhere, in any order: each begins at an odd place of its own.
      const std::size_t bytes = static_cast<std::size_t>(k) * size;
      std::vector<std::byte> source(kPanelColumns * (bytes + 7) + 1);
      for (std::byte& b : source) b = static_cast<std::byte>(rng.next());
      PanelRows rows;
      for (std::size_t c = 0; c < rows.size(); ++c) rows[c] = source.data() + 1 + (c * 13 % rows.size()) * (bytes + 7);
      std::vector<std::byte> out(bytes * kPanelColumns + kGuard, std::byte{0x5a});
      transpose_rows(rows, k, size, out.data());
      for (std::size_t i = 0; i < static_cast<std::size_t>(k); ++i)
        for (std::size_t c = 0; c < rows.size(); ++c)
          ASSERT_TRUE(
              std::equal(rows[c] + i * size, rows[c] + (i + 1) * size, out.data() + (i * kPanelColumns + c) * size))
              << "element " << i << " of row " << c;
      EXPECT_EQ(std::count(out.end() - kGuard, out.end(), std::byte{0x5a}), static_cast<std::ptrdiff_t>(kGuard));
    }
  }
}

}  // namespace
}  // namespace tandem::cpu
