// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/split/add_partials.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/scalar.h"
#include "ops/cuda/device_memory.h"
#include "tests/ops/cuda/gpu_test.h"

namespace tandem::cuda {
namespace {

class AddPartialsTest : public GpuTest {};

std::vector<std::uint16_t> random_bf16(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<std::uint16_t> values(count);
  for (std::uint16_t& v : values) v = f32_to_bf16(normal(random));
  return values;
}

// Bit for bit, and nothing beyond the rows.
TEST_F(AddPartialsTest, PartsOfAllGpusAreAddedInTheirOrder) {
  for (const std::int32_t neighbours : {0, 1, 7})
    for (const std::int32_t rows : {1, 37}) {
      const std::int32_t columns = 2'056;
      const auto count = static_cast<std::size_t>(rows * columns);
      const std::vector<std::uint16_t> own = random_bf16(count, 1);
      const std::vector<std::uint16_t> arrived = random_bf16(count * static_cast<std::size_t>(neighbours), 2);
      const DeviceMemory own_memory = DeviceMemory::of(own), arrived_memory = DeviceMemory::of(arrived);
      DeviceMemory out(count * 2 + 16);
      out.fill(0x55);
      synchronise();
      run(AddPartials{.own = own_memory.as<std::uint16_t>(),
                      .arrived = arrived_memory.as<std::uint16_t>(),
                      .out = out.as<std::uint16_t>(),
                      .neighbours = neighbours,
                      .rows = rows,
                      .columns = columns},
          nullptr);
      synchronise();
      const auto found = out.download<std::uint16_t>();
      for (std::size_t i = 0; i < count; ++i) {
        float sum = bf16_to_f32(own[i]);
        for (std::size_t n = 0; n < static_cast<std::size_t>(neighbours); ++n)
          sum += bf16_to_f32(arrived[n * count + i]);
        ASSERT_EQ(found[i], f32_to_bf16(sum)) << i;
      }
      for (std::size_t i = count; i < found.size(); ++i) EXPECT_EQ(found[i], 0x5555u);
    }
}

TEST_F(AddPartialsTest, SealsWhatItCompletes) {
  const DeviceMemory own = DeviceMemory::of(random_bf16(16, 3)), step = DeviceMemory::of(std::vector<std::uint32_t>{9});
  DeviceMemory out(32), seal(sizeof(Seal));
  run(AddPartials{.own = own.as<std::uint16_t>(),
                  .out = out.as<std::uint16_t>(),
                  .rows = 2,
                  .columns = 8,
                  .seal = {.seal = seal.as<Seal>(),
                           .value = {.layer = 5, .micro_batch = 1, .rows = 2},
                           .step = step.as<std::uint32_t>()}},
      nullptr);
  synchronise();
  const Seal found = seal.download<Seal>()[0];
  EXPECT_EQ(found.step, 9u);
  EXPECT_EQ(found.layer, 5);
  EXPECT_EQ(found.rows, 2);
}

}  // namespace
}  // namespace tandem::cuda
