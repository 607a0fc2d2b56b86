// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <vector>

namespace tandem {
namespace {

std::vector<float> widen(DType dtype, const std::vector<unsigned char>& bytes, std::size_t elements) {
  std::vector<float> out(elements);
  dequantise(dtype, reinterpret_cast<const std::byte*>(bytes.data()), elements, out.data());
  return out;
}

TEST(DType, row_bytes_counts_whole_blocks) {
  EXPECT_EQ(row_bytes(DType::kF32, 3), 12u);
  EXPECT_EQ(row_bytes(DType::kQ8_0, 64), 68u);
  EXPECT_EQ(row_bytes(DType::kQ4_0, 64), 36u);
  EXPECT_EQ(row_bytes(DType::kQ4_1, 96), 60u);
}

TEST(Dequantise, plain_types) {
  EXPECT_EQ(widen(DType::kBF16, {0x80, 0x3f, 0x00, 0xc0}, 2), (std::vector<float>{1, -2}));
  EXPECT_EQ(widen(DType::kF16, {0x00, 0x3c, 0x00, 0xc0}, 2), (std::vector<float>{1, -2}));
  EXPECT_EQ(widen(DType::kF32, {0, 0, 0x80, 0x3f}, 1), (std::vector<float>{1}));
}

TEST(Dequantise, q8_0_is_scale_times_signed_byte) {
  std::vector<unsigned char> block(34);
  block[1] = 0x38;  // f16 0.5
  block[2] = 0x7f;
  block[33] = 0x80;
  const auto values = widen(DType::kQ8_0, block, 32);
  EXPECT_EQ(values[0], 63.5f);
  EXPECT_EQ(values[1], 0.0f);
  EXPECT_EQ(values[31], -64.0f);
}

TEST(Dequantise, four_bit_types_keep_low_nibbles_first) {
  std::vector<unsigned char> q4_0(18);
  q4_0[1] = 0x40;  // f16 2.0
  q4_0[2] = 0xf1;
  auto values = widen(DType::kQ4_0, q4_0, 32);
  EXPECT_EQ(values[0], 2.0f * (1 - 8));
  EXPECT_EQ(values[16], 2.0f * (15 - 8));
  EXPECT_EQ(values[31], 2.0f * (0 - 8));

  std::vector<unsigned char> q4_1(20);
  q4_1[1] = 0x40;  // scale 2.0
  q4_1[3] = 0xbc;  // minimum -1.0
  q4_1[4 + 15] = 0xf1;
  values = widen(DType::kQ4_1, q4_1, 32);
  EXPECT_EQ(values[15], 2.0f * 1 - 1);
  EXPECT_EQ(values[31], 2.0f * 15 - 1);
  EXPECT_EQ(values[0], -1.0f);
}

TEST(DequantiseDeath, refuses_part_of_a_block) {
  std::vector<float> out(32);
  const std::array<std::byte, 34> block{};
  EXPECT_DEATH(dequantise(DType::kQ8_0, block.data(), 16, out.data()), "inside a quantised block");
}

}  // namespace
}  // namespace tandem
