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
  EXPECT_EQ(widen(DType::kF8E4M3, {0x38, 0xc0, 0x01, 0x7e}, 4), (std::vector<float>{1, -2, 0x1p-9f, 448}));
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

// Every sub-block has a scale and a minimum of its own; each comes out of its six bits.
TEST(KScale, sixteen_numbers_of_six_bits_lie_in_twelve_bytes) {
  std::array<std::byte, 12> packed{};
  const std::array<unsigned, 8> scales{0, 63, 17, 42, 1, 62, 33, 20}, minima{63, 0, 5, 48, 32, 31, 16, 47};
  for (unsigned g = 0; g < 4; ++g) {
    packed[g] = static_cast<std::byte>(scales[g] | scales[g + 4] >> 4 << 6);
    packed[g + 4] = static_cast<std::byte>(minima[g] | minima[g + 4] >> 4 << 6);
    packed[g + 8] = static_cast<std::byte>((scales[g + 4] & 15) | (minima[g + 4] & 15) << 4);
  }
  for (int g = 0; g < 8; ++g) {
    EXPECT_EQ(k_scale(packed.data(), g).scale, scales[g]) << g;
    EXPECT_EQ(k_scale(packed.data(), g).minimum, minima[g]) << g;
  }
}

TEST(Dequantise, k_types_take_scales_and_bits_from_their_places) {
  std::vector<unsigned char> q4(144), q5(176), q6(210);
  for (auto* block : {&q4, &q5}) {
    (*block)[1] = 0x40;  // d = 2
    (*block)[3] = 0x3c;  // m = 1
    (*block)[4] = 3;     // group 0: scale 3, minimum 7
    (*block)[8] = 7;
    (*block)[5] = 5;  // group 1: scale 5, minimum 0
  }
  q4[16 + 9] = 0xa4;
  auto values = widen(DType::kQ4_K, q4, 256);
  EXPECT_EQ(values[9], 2 * 3 * 4 - 7);
  EXPECT_EQ(values[32 + 9], 2 * 5 * 10);
  EXPECT_EQ(values[10], -7);
  q5[48 + 9] = 0xa4;
  q5[16 + 9] = 0x02;  // the fifth bit of group 1
  values = widen(DType::kQ5_K, q5, 256);
  EXPECT_EQ(values[9], 2 * 3 * 4 - 7);
  EXPECT_EQ(values[32 + 9], 2 * 5 * 26);
  q6[209] = 0x40;       // d = 2
  q6[192 + 8] = 3;      // scale of values 128 … 143
  q6[192 + 15] = 0xff;  // -1, of values 240 … 255
  q6[64] = 0x05;        // nibbles of values 128 and 192
  q6[128 + 32] = 0x02;  // pair of value 128
  q6[64 + 63] = 0x70;   // nibble of value 255
  q6[128 + 63] = 0xc0;  // its pair
  values = widen(DType::kQ6_K, q6, 256);
  EXPECT_EQ(values[128], 2 * 3 * (5 + 32 - 32));
  EXPECT_EQ(values[129], 2 * 3 * -32);
  EXPECT_EQ(values[255], 2 * -1 * (7 + 48 - 32));
}

TEST(DequantiseDeath, refuses_part_of_a_block) {
  std::vector<float> out(32);
  const std::array<std::byte, 34> block{};
  EXPECT_DEATH(dequantise(DType::kQ8_0, block.data(), 16, out.data()), "inside a quantised block");
}

}  // namespace
}  // namespace tandem
