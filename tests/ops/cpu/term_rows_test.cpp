// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Where rows in terms lie, and that nothing is lost when a row is cut.
#include "ops/cpu/term_rows.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "base/scalar.h"
#include "ops/cpu/variants.h"
#include "tests/ops/backend_tests.h"

namespace tandem {
namespace {

TEST(TermRows, FillGroupsOfSixteen) {
  constexpr std::int64_t kBlocks = 3;
  std::vector<std::byte> memory(static_cast<std::size_t>(40 * kBlocks * cpu::kTermBlockBytes));
  for (std::int64_t rows = 1; rows <= 40; ++rows) {
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t first = i / 16 * 16;
      const cpu::RowPlace found = cpu::term_row(memory.data(), kBlocks, rows, i);
      ASSERT_EQ(found.rows, std::min<std::int64_t>(16, rows - first)) << "row " << i << " of " << rows;
      ASSERT_EQ(found.row, i - first);
      ASSERT_EQ(found.tile, memory.data() + first * kBlocks * cpu::kTermBlockBytes);
    }
  }
}

class SplitRowTest : public CpuVariantTest {};

TEST_P(SplitRowTest, TermsAddUpToTheRowSliceBySlice) {
  const cpu::Kernels& kernels = *cpu::choose_kernels(GetParam().name).kernels;
  if (!kernels.split_row) GTEST_SKIP() << "kernels without products in terms";
  constexpr int kRows = 5, kRow = 3;
  const std::int32_t bounds[] = {0, 33, 33, 70};  // two blocks, none, two
  constexpr std::size_t kBlocks = 4;
  Rng rng(7);
  std::vector<float> x(70);
  for (float& value : x) value = 3 * rng.normal();
  x[1] = -0.0f;
  x[2] = 3.4e38f;
  x[3] = 1e-20f;
  x[40] = INFINITY;
  x[41] = NAN;
  std::vector<std::byte> group(kRows * kBlocks * cpu::kTermBlockBytes, std::byte{0x5a});
  kernels.split_row(x.data(), bounds, 3, {group.data(), kRows, kRow});

  const auto term = [&](std::size_t block, std::size_t index, std::size_t column) {
    std::uint16_t bits;
    std::memcpy(&bits, &group[(((block * 3 + index) * kRows + kRow) * 32 + column) * 2], sizeof bits);
    return bf16_to_f32(bits);
  };
  for (std::size_t block = 0; block < kBlocks; ++block) {
    const std::size_t begin = block < 2 ? 32 * block : 33 + 32 * (block - 2), end = block < 2 ? 33 : 70;
    for (std::size_t c = 0; c < 32; ++c) {
      const float expected = begin + c < end ? x[begin + c] : 0;
      const float sum = term(block, 2, c) + (term(block, 1, c) + term(block, 0, c));
      EXPECT_TRUE(std::isnan(expected) ? std::isnan(sum) : sum == expected)
          << "block " << block << ", column " << c << ": " << sum << " for " << expected;
    }
  }
  for (std::size_t i = 0; i < group.size(); ++i)
    ASSERT_TRUE(i / 64 % kRows == kRow || group[i] == std::byte{0x5a}) << "byte " << i << " is another row's";
}

INSTANTIATE_TEST_SUITE_P(Cpu, SplitRowTest, testing::ValuesIn(cpu_variants()), variant_name);

}  // namespace
}  // namespace tandem
