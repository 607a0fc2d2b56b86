// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/random_bytes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

namespace tandem {
namespace {

TEST(RandomBytes, EveryByteIsFilledAndNothingComesTwice) {
  std::vector<bool> seen(1000);
  for (int round = 0; round < 8; ++round) {
    std::vector<std::byte> bytes(1000);
    fill_random(bytes);
    for (std::size_t i = 0; i < bytes.size(); ++i) seen[i] = seen[i] || bytes[i] != std::byte{0};
  }
  EXPECT_TRUE(std::ranges::all_of(seen, [](bool value) { return value; }));  // by chance once in 256^8 / 1000
  fill_random({});
  std::set<std::uint64_t> numbers;
  for (int i = 0; i < 1000; ++i) numbers.insert(random_number());
  EXPECT_EQ(numbers.size(), 1000u);
}

}  // namespace
}  // namespace tandem
