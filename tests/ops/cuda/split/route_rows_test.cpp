// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/split/route_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "base/scalar.h"
#include "ops/cuda/device_memory.h"
#include "tests/ops/cuda/gpu_test.h"

namespace tandem::cuda {
namespace {

std::vector<std::uint16_t> random_bf16_values(std::size_t count, float deviation, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<std::uint16_t> values(count);
  for (std::uint16_t& value : values) value = f32_to_bf16(normal(random));
  return values;
}

struct Case {
  std::int32_t rows, hidden, experts, top_k;
};

class RouteRowsTest : public GpuTest, public testing::WithParamInterface<Case> {};

// The probabilities of one row.
std::vector<double> probabilities(const Case& c, const std::uint16_t* x, const std::vector<std::uint16_t>& weight) {
  std::vector<double> p(static_cast<std::size_t>(c.experts));
  for (std::size_t e = 0; e < p.size(); ++e)
    for (std::size_t i = 0; i < static_cast<std::size_t>(c.hidden); ++i)
      p[e] += static_cast<double>(bf16_to_f32(x[i])) * bf16_to_f32(weight[e * static_cast<std::size_t>(c.hidden) + i]);
  const double largest = std::ranges::max(p);
  double sum = 0;
  for (double& value : p) sum += value = std::exp(value - largest);
  for (double& value : p) value /= sum;
  return p;
}

TEST_P(RouteRowsTest, TheLikeliestExpertsWithTheirProbabilities) {
  const Case c = GetParam();
  const auto rows = static_cast<std::size_t>(c.rows), hidden = static_cast<std::size_t>(c.hidden),
             k = static_cast<std::size_t>(c.top_k);
  const std::vector<std::uint16_t> x = random_bf16_values(rows * hidden, 1, 1);
  const std::vector<std::uint16_t> weight =
      random_bf16_values(static_cast<std::size_t>(c.experts) * hidden, 1 / std::sqrt(static_cast<float>(hidden)), 2);
  const DeviceMemory device_x = DeviceMemory::of(x), device_weight = DeviceMemory::of(weight);
  const DeviceMemory ids(rows * k * 4), weights(rows * k * 4);
  run(RouteRows{.x = device_x.as<std::uint16_t>(),
                .weight = device_weight.as<std::uint16_t>(),
                .ids = ids.as<std::int32_t>(),
                .weights = weights.as<float>(),
                .rows = c.rows,
                .hidden = c.hidden,
                .experts = c.experts,
                .top_k = c.top_k},
      nullptr);
  synchronise();
  const std::vector<std::int32_t> found = ids.download<std::int32_t>();
  const std::vector<float> found_weights = weights.download<float>();
  for (std::size_t row = 0; row < rows; ++row) {
    std::vector<double> p = probabilities(c, &x[row * hidden], weight);
    for (std::size_t slot = 0; slot < k; ++slot) {
      const double best = std::ranges::max(p);
      const auto id = static_cast<std::size_t>(found[row * k + slot]);
      ASSERT_LT(id, p.size());
      ASSERT_NEAR(p[id], best, 1e-5 * best)
          << "row " << row << ", slot " << slot;  // equal up to rounding, not taken yet
      EXPECT_NEAR(found_weights[row * k + slot], p[id], 1e-4 * best);
      p[id] = -1;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, RouteRowsTest,
                         testing::Values(Case{1, 1024, 8, 1}, Case{17, 2048, 48, 3}, Case{240, 7168, 48, 3},
                                         Case{33, 1024, 64, 8}));

class SealTest : public GpuTest {};

TEST_F(SealTest, WhatIsNotExpectedIsCounted) {
  const DeviceMemory seal(sizeof(Seal)), step = DeviceMemory::of(std::vector<std::uint32_t>{7});
  DeviceMemory mismatches = DeviceMemory::of(std::vector<std::uint32_t>{0});
  const SealWrite write{
      .seal = seal.as<Seal>(), .value = {.layer = 3, .micro_batch = 1, .rows = 5}, .step = step.as<std::uint32_t>()};
  run(SealHandOver{.seal = write}, nullptr);
  SealCheck check{.seal = seal.as<Seal>(),
                  .expected = {.layer = 3, .micro_batch = 1, .rows = 5},
                  .step = step.as<std::uint32_t>(),
                  .mismatches = mismatches.as<std::uint32_t>()};
  run(SealHandOver{.returned = check}, nullptr);
  synchronise();
  EXPECT_EQ(mismatches.download<std::uint32_t>()[0], 0u);
  for (std::int32_t Seal::* field : {&Seal::layer, &Seal::micro_batch, &Seal::rows}) {
    SealCheck wrong = check;
    wrong.expected.*field += 1;
    run(SealHandOver{.returned = wrong}, nullptr);
  }
  check.steps_ago = 1;
  run(SealHandOver{.returned = check}, nullptr);
  synchronise();
  EXPECT_EQ(mismatches.download<std::uint32_t>()[0], 4u);
}

}  // namespace
}  // namespace tandem::cuda
