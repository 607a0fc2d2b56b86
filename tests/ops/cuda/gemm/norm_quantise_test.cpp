// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/gemm/norm_quantise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "base/scalar.h"
#include "ops/cuda/bench/fp8_problem.h"
#include "ops/cuda/device_memory.h"
#include "tests/ops/cuda/gpu_test.h"

namespace tandem::cuda {
namespace {

constexpr float kEpsilon = 1e-5f;

struct Case {
  std::int64_t rows, columns;
  bool residual, delta;
  std::int64_t delta_stride;
};

class NormQuantiseTest : public GpuTest, public testing::WithParamInterface<Case> {};

struct Problem {
  explicit Problem(const Case& c) : c(c), tile_rows((c.rows + 63) / 64 * 64) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    const auto size = static_cast<std::size_t>(c.rows * c.columns);
    for (std::size_t i = 0; i < size; ++i) residual.push_back(c.residual ? normal(random) : 0);
    for (std::int64_t i = 0; i < c.rows * c.delta_stride; ++i) delta.push_back(f32_to_bf16(2 * normal(random)));
    for (std::int64_t i = 0; i < c.columns; ++i) gain.push_back(1 + .25f * normal(random));
    device_residual = DeviceMemory::of(residual);
    device_delta = DeviceMemory::of(delta);
    device_gain = DeviceMemory::of(gain);
    tiles = DeviceMemory(static_cast<std::size_t>(tile_rows * c.columns));
    scales = DeviceMemory(static_cast<std::size_t>(tile_rows * c.columns / 128) * sizeof(float));
    squares = DeviceMemory(
        static_cast<std::size_t>(tile_rows * NormQuantise::square_parts(static_cast<std::int32_t>(c.columns))) *
        sizeof(float));
    tiles.fill(0xff);
    scales.fill(0xff);
    squares.fill(0xff);
  }

  void run(bool before_norm = false) const {
    cuda::run(NormQuantise{.residual = c.residual ? device_residual.as<float>() : nullptr,
                           .delta = c.delta ? device_delta.as<std::uint16_t>() : nullptr,
                           .delta_stride = c.delta_stride,
                           .gain = device_gain.as<float>(),
                           .epsilon = kEpsilon,
                           .tiles = tiles.as<std::uint8_t>(),
                           .scales = scales.as<float>(),
                           .tile_rows = tile_rows,
                           .rows = static_cast<std::int32_t>(c.rows),
                           .columns = static_cast<std::int32_t>(c.columns),
                           .squares = before_norm ? squares.as<float>() : nullptr},
              nullptr);
    synchronise();
  }

  std::vector<double> sums(std::int64_t row) const {  // residual + delta
    std::vector<double> x;
    for (std::int64_t i = 0; i < c.columns; ++i) {
      const float from = residual[static_cast<std::size_t>(row * c.columns + i)];
      x.push_back(c.delta ? from + bf16_to_f32(delta[static_cast<std::size_t>(row * c.delta_stride + i)]) : from);
    }
    return x;
  }

  Case c;
  std::int64_t tile_rows;
  std::vector<float> residual, gain;
  std::vector<std::uint16_t> delta;
  DeviceMemory device_residual, device_delta, device_gain, tiles, scales, squares;
};

// What the tiles have of a row, against its sums times the factor and their gain.
void expect_row(const Problem& p, std::int64_t row, double factor, const std::vector<std::uint8_t>& tiles,
                const std::vector<float>& scales) {
  const std::vector<double> x = p.sums(row),
                            values = fp8_row(tiles, scales, p.tile_rows, static_cast<std::int32_t>(row),
                                             static_cast<std::int32_t>(p.c.columns));
  for (std::int64_t block = 0; block < p.c.columns / 128; ++block) {
    double largest = 0;
    for (std::int64_t i = 0; i < 128; ++i) {
      const auto at = static_cast<std::size_t>(block * 128 + i);
      largest = std::max(largest, std::abs(x[at] * factor * p.gain[at]));
    }
    const double scale = scales[static_cast<std::size_t>(block * p.tile_rows + row)];
    ASSERT_NEAR(scale * 448, largest, 1e-5 * largest) << row << " " << block;
    for (std::int64_t i = 0; i < 128; ++i) {
      const auto at = static_cast<std::size_t>(block * 128 + i);
      const double right = x[at] * factor * p.gain[at];
      ASSERT_NEAR(values[at], right, std::abs(right) / 15 + scale / 500) << row << " " << at;
    }
  }
}

TEST_P(NormQuantiseTest, IsTheNormOfTheSumInEightBits) {
  const Problem p(GetParam());
  p.run();
  const auto tiles = p.tiles.download<std::uint8_t>();
  const auto scales = p.scales.download<float>();
  for (std::int64_t row = 0; row < p.c.rows; ++row) {
    const std::vector<double> x = p.sums(row);
    double squares = 0;
    for (const double value : x) squares += value * value;
    expect_row(p, row, 1 / std::sqrt(squares / static_cast<double>(p.c.columns) + kEpsilon), tiles, scales);
  }
}

TEST_P(NormQuantiseTest, LeavesTheFactorToTheProduct) {
  const Problem p(GetParam());
  p.run(true);
  const auto tiles = p.tiles.download<std::uint8_t>();
  const auto scales = p.scales.download<float>(), squares = p.squares.download<float>();
  for (std::int64_t row = 0; row < p.c.rows; ++row) {
    expect_row(p, row, 1, tiles, scales);
    const std::vector<double> x = p.sums(row);
    for (std::size_t begin = 0, part = 0; begin < x.size(); begin += NormQuantise::kColumnsOfSquare, ++part) {
      double sum = 0;
      for (std::size_t i = begin; i < std::min(begin + NormQuantise::kColumnsOfSquare, x.size()); ++i)
        sum += x[i] * x[i];
      const std::size_t at = part * static_cast<std::size_t>(p.tile_rows) + static_cast<std::size_t>(row);
      ASSERT_NEAR(static_cast<double>(squares[at]), sum, 1e-5 * sum) << row << " " << part;
    }
  }
}

void expect_residual(const Problem& p) {
  const auto residual = p.device_residual.download<float>();
  for (std::int64_t row = 0; row < p.c.rows; ++row) {
    const std::vector<double> x = p.sums(row);
    for (std::int64_t i = 0; i < p.c.columns; ++i) {
      const auto at = static_cast<std::size_t>(row * p.c.columns + i);
      ASSERT_EQ(residual[at], p.c.residual ? static_cast<float>(x[static_cast<std::size_t>(i)]) : 0) << row << " " << i;
    }
  }
}

TEST_P(NormQuantiseTest, KeepsTheSumAsResidual) {
  for (const bool before_norm : {false, true}) {
    const Problem p(GetParam());
    p.run(before_norm);
    expect_residual(p);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, NormQuantiseTest,
                         testing::Values(Case{1, 128, true, true, 128}, Case{65, 7168, true, true, 7168},
                                         Case{128, 2048, false, true, 2560}, Case{3, 8192, true, false, 8192}));

TEST(NormQuantise, NothingToDoIsDone) {
  run(NormQuantise{}, nullptr);
}

}  // namespace
}  // namespace tandem::cuda
