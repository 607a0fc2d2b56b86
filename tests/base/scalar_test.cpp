// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/scalar.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace tandem {
namespace {

TEST(Bf16, survives_the_way_to_f32_and_back) {
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const float value = bf16_to_f32(static_cast<std::uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(value))));
    } else {
      ASSERT_EQ(f32_to_bf16(value), bits);
    }
  }
}

TEST(Bf16, rounds_to_nearest_even) {
  EXPECT_EQ(f32_to_bf16(1.0f), 0x3f80);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808000u)), 0x3f80) << "a tie goes to the even one below";
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f818000u)), 0x3f82) << "a tie goes to the even one above";
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7f80) << "beyond the largest is infinity";
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001u))))) << "NaN with low bits only";
}

TEST(F16, is_exact_at_every_edge) {
  EXPECT_EQ(f16_to_f32(0x3c00), 1.0f);
  EXPECT_EQ(f16_to_f32(0xc000), -2.0f);
  EXPECT_EQ(f16_to_f32(0x7bff), 65504.0f);
  EXPECT_EQ(f16_to_f32(0x0400), 0x1p-14f) << "smallest normal";
  EXPECT_EQ(f16_to_f32(0x0001), 0x1p-24f) << "smallest subnormal";
  EXPECT_EQ(f16_to_f32(0x03ff), 1023 * 0x1p-24f) << "largest subnormal";
  EXPECT_TRUE(std::signbit(f16_to_f32(0x8000)));
  EXPECT_EQ(f16_to_f32(0x7c00), std::numeric_limits<float>::infinity());
  EXPECT_EQ(f16_to_f32(0xfc00), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(f16_to_f32(0x7e00)));
}

TEST(F8E4M3, survives_the_way_to_f32_and_back) {
  for (std::uint32_t bits = 0; bits <= 0xff; ++bits) {
    const float value = f8_e4m3_to_f32(static_cast<std::uint8_t>(bits));
    EXPECT_EQ(std::isnan(value), (bits & 0x7f) == 0x7f);
    EXPECT_EQ(f32_to_f8_e4m3(value), bits);
    if (std::isnan(value)) continue;
    const std::uint32_t exponent = bits >> 3 & 15, mantissa = bits & 7;  // from the definition
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, static_cast<int>(exponent) - 10);
    EXPECT_EQ(std::abs(value), magnitude);
    EXPECT_EQ(std::signbit(value), bits >= 0x80);
  }
}

// Against the nearest of all values, for numbers around every value and every middle between two.
TEST(F8E4M3, rounds_to_nearest_even) {
  for (std::uint8_t low = 0; low < 0x7e; ++low) {
    const float a = f8_e4m3_to_f32(low), b = f8_e4m3_to_f32(static_cast<std::uint8_t>(low + 1)), middle = (a + b) / 2;
    const auto high = static_cast<std::uint8_t>(low + 1);
    for (const float sign : {1.0f, -1.0f}) {
      const std::uint8_t bit = sign < 0 ? 0x80 : 0;
      EXPECT_EQ(f32_to_f8_e4m3(sign * std::nextafter(middle, 0.0f)), low | bit);
      EXPECT_EQ(f32_to_f8_e4m3(sign * std::nextafter(middle, 1000.0f)), high | bit);
      EXPECT_EQ(f32_to_f8_e4m3(sign * middle), (low % 2 == 0 ? low : high) | bit) << "a tie at " << middle;
    }
  }
  EXPECT_EQ(f32_to_f8_e4m3(0x1p-10f), 0) << "half of the smallest is a tie with zero";
  EXPECT_EQ(f32_to_f8_e4m3(1e-30f), 0);
  EXPECT_EQ(f32_to_f8_e4m3(500), 0x7e) << "beyond the largest is the largest";
  EXPECT_EQ(f32_to_f8_e4m3(-std::numeric_limits<float>::infinity()), 0xfe);
}

}  // namespace
}  // namespace tandem
