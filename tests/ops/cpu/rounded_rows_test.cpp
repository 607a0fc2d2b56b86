// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Where rounded rows lie, and what each variant's kernel writes there.
#include "ops/cpu/rounded_rows.h"

#include <cstring>
#include <limits>
#include <vector>

#include "ops/cpu/variants.h"
#include "ops/int8_rows.h"
#include "tests/ops/backend_tests.h"

namespace tandem {
namespace {

TEST(RoundedRows, FillTilesOfFallingSizes) {
  std::vector<std::byte> memory(static_cast<std::size_t>(70 * cpu::rounded_row_bytes(96)));
  for (std::int64_t rows = 1; rows <= 70; ++rows) {
    for (std::int64_t i = 0; i < rows;) {
      const std::int64_t first = i;
      int size = cpu::kRoundedTileRows;
      while (size > rows - first) size /= 2;
      for (int r = 0; r < size; ++r, ++i) {
        const cpu::RowPlace found = cpu::rounded_row(memory.data(), 96, rows, i);
        ASSERT_EQ(found.rows, size) << "row " << i << " of " << rows;
        ASSERT_EQ(found.row, r);
        ASSERT_EQ(found.tile, memory.data() + first * cpu::rounded_row_bytes(96));
      }
    }
  }
}

class RoundRowTest : public CpuVariantTest {};

template <class Number>
Number number_at(const std::vector<std::byte>& bytes, std::size_t at) {
  Number value;
  std::memcpy(&value, &bytes[at], sizeof value);
  return value;
}

TEST_P(RoundRowTest, MakesTheCodesAndFactorsThatAreDefined) {
  constexpr std::size_t kBlocks = 9, kRows = 4, kRow = 2, kTileBytes = kRows * cpu::kRoundedBlockBytes;
  const cpu::Kernels& kernels = *cpu::choose_kernels(GetParam().name).kernels;
  Rng rng(5);
  std::vector<float> x(kBlocks * kInt8Group);
  for (float& value : x) value = 3 * rng.normal();
  for (int c = 0; c < kInt8Group; ++c) x[kInt8Group + c] = 0;
  x[2 * kInt8Group + 7] = NAN;
  x[3 * kInt8Group + 30] = -INFINITY;
  for (int c = 0; c < kInt8Group; ++c) x[4 * kInt8Group + c] = c == 0 ? 127.0f : static_cast<float>(c) - 15.5f;  // ties
  x[5 * kInt8Group] = 1e38f;
  for (int c = 0; c < kInt8Group; ++c) x[6 * kInt8Group + c] = 1e-40f * static_cast<float>(c);
  std::vector<std::int8_t> codes(x.size());
  std::vector<float> scales(kBlocks);
  round_row_to_int8(x.data(), static_cast<std::int64_t>(x.size()), codes.data(), scales.data());

  std::vector<std::byte> tile(kBlocks * kTileBytes, std::byte{0x5a});
  kernels.round_row(x.data(), kBlocks, {tile.data(), kRows, kRow});
  constexpr std::size_t kOrder[] = {0, 2, 4, 6, 1, 3, 5, 7};
  std::vector<bool> written(tile.size());
  for (std::size_t b = 0; b < kBlocks; ++b) {
    const std::size_t begin = b * kTileBytes;
    int sums[2] = {0, 0};
    for (std::size_t c = 0; c < kInt8Group; ++c) {
      const std::int8_t code = codes[b * kInt8Group + c / 8 * 8 + kOrder[c % 8]];
      ASSERT_EQ(static_cast<std::int8_t>(tile[begin + kRow * kInt8Group + c]), code) << "block " << b << ", code " << c;
      written[begin + kRow * kInt8Group + c] = true;
      sums[c / 16] += code;
    }
    const std::size_t numbers = begin + kRows * kInt8Group + 4 * kRow;
    const auto scaled_sum = scales[b] * static_cast<float>(sums[0] + sums[1]);
    EXPECT_TRUE(same_bits({number_at<float>(tile, numbers)}, {scales[b]})) << "block " << b;
    EXPECT_TRUE(close({number_at<float>(tile, numbers + 4 * kRows)}, {scaled_sum}, kExact)) << "block " << b;
    EXPECT_EQ(number_at<std::int32_t>(tile, numbers + 8 * kRows), -(sums[0] + sums[1]));
    EXPECT_EQ(number_at<std::int32_t>(tile, numbers + 12 * kRows), -sums[0]);
    EXPECT_EQ(number_at<std::int32_t>(tile, numbers + 16 * kRows), -sums[1]);
    for (std::size_t i = 0; i < 5; ++i)
      for (std::size_t j = 0; j < 4; ++j) written[numbers + 4 * kRows * i + j] = true;
  }
  for (std::size_t i = 0; i < tile.size(); ++i)
    ASSERT_TRUE(written[i] || tile[i] == std::byte{0x5a}) << "byte " << i << " is another row's";
}

INSTANTIATE_TEST_SUITE_P(Cpu, RoundRowTest, testing::ValuesIn(cpu_variants()), variant_name);

}  // namespace
}  // namespace tandem
