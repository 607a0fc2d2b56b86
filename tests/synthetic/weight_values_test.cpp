// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "synthetic/weight_values.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace tandem {
namespace {

std::vector<std::byte> bytes_of(const WeightValues& values, std::size_t count) {
  std::vector<std::byte> bytes(count);
  values.fill(0, bytes);
  return bytes;
}

TEST(WeightValues, HaveTheSpreadThatIsAskedFor) {
  for (const auto& [dtype, mean, deviation] :
       {std::tuple{DType::kF32, 1.0, 0.1}, {DType::kBF16, 0.0, 0.02}, {DType::kF8E4M3, 0.0, 128.0}}) {
    SCOPED_TRACE(name(dtype));
    constexpr std::size_t kCount = 1 << 18;
    const WeightValues values(1, "a", dtype, {static_cast<float>(mean), static_cast<float>(deviation)});
    const auto bytes = bytes_of(values, kCount * traits(dtype).block_bytes);
    std::vector<float> out(kCount);
    dequantise(dtype, bytes.data(), kCount, out.data());
    double sum = 0, squares = 0;
    for (const float value : out) {
      ASSERT_TRUE(std::isfinite(value));
      sum += value;
      squares += (value - mean) * (value - mean);
    }
    EXPECT_NEAR(sum / kCount, mean, 0.01 * deviation);
    EXPECT_NEAR(std::sqrt(squares / kCount), deviation, 0.01 * deviation);
  }
}

TEST(WeightValues, APieceIsWhatItIsInTheWhole) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
    const std::size_t size = traits(dtype).block_bytes;
    const WeightValues values(7, "model.norm.weight", dtype, {});
    const auto whole = bytes_of(values, 1003 * size);
    for (const std::size_t first : {0, 8, 512, 1000}) {
      std::vector<std::byte> piece((1003 - first) * size);
      values.fill(first * size, piece);
      EXPECT_TRUE(std::ranges::equal(piece, std::span(whole).subspan(first * size))) << name(dtype) << " " << first;
    }
  }
}

TEST(WeightValues, DependOnSeedAndNameAlone) {
  const auto of = [](std::uint64_t seed, const std::string& name) {
    return bytes_of(WeightValues(seed, name, DType::kBF16, {}), 4096);
  };
  EXPECT_EQ(of(1, "a"), of(1, "a"));
  EXPECT_NE(of(1, "a"), of(2, "a"));
  EXPECT_NE(of(1, "a"), of(1, "b"));
  EXPECT_NE(of(1, "ab"), of(1, "ba"));
}

}  // namespace
}  // namespace tandem
