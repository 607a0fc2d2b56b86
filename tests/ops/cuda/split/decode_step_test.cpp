// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/split/decode_step.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/scalar.h"
#include "ops/cuda/device_memory.h"
#include "tests/ops/cuda/gpu_test.h"

namespace tandem::cuda {
namespace {

using Ints = std::vector<std::int32_t>;

class DecodeStepTest : public GpuTest {};

TEST_F(DecodeStepTest, TokensBecomeRowsAndStrangersTheFirst) {
  constexpr std::int32_t kVocab = 5, kColumns = 12;
  std::vector<std::uint16_t> table;
  for (int i = 0; i < kVocab * kColumns; ++i) table.push_back(f32_to_bf16(static_cast<float>(i)));
  const Ints ids{4, 0, 2, -1, 5};
  std::vector<SampledRow> drawn;
  for (const std::int32_t id : ids) drawn.push_back({id, SampleOutcome::kDrawn});
  const DeviceMemory device_table = DeviceMemory::of(table), tokens = DeviceMemory::of(drawn);
  const DeviceMemory residual(ids.size() * kColumns * sizeof(float));
  run(EmbedTokens{.tokens = tokens.as<SampledRow>(),
                  .table = device_table.as<std::uint16_t>(),
                  .vocab = kVocab,
                  .residual = residual.as<float>(),
                  .rows = static_cast<std::int32_t>(ids.size()),
                  .columns = kColumns},
      nullptr);
  synchronise();
  const std::vector<float> rows = residual.download<float>();
  for (std::size_t row = 0; row < ids.size(); ++row)
    for (std::size_t c = 0; c < kColumns; ++c) {
      const std::int32_t id = ids[row] >= 0 && ids[row] < kVocab ? ids[row] : 0;
      EXPECT_EQ(rows[row * kColumns + c], static_cast<float>(id * kColumns + static_cast<std::int32_t>(c)));
    }
}

TEST_F(DecodeStepTest, SequencesGrowAndBeginAgain) {
  const Ints table{7, 3, 9, 1};  // two sequences of two blocks
  const DeviceMemory lengths = DeviceMemory::of(Ints{64, 128}), positions(8), slots(8);
  const DeviceMemory device_table = DeviceMemory::of(table), step = DeviceMemory::of(std::vector<std::uint32_t>{41});
  run(GrowSequences{.lengths = lengths.as<std::int32_t>(),
                    .positions = positions.as<std::int32_t>(),
                    .slots = slots.as<std::int32_t>(),
                    .block_table = device_table.as<std::int32_t>(),
                    .blocks_max = 2,
                    .rows = 2,
                    .length_min = 65,
                    .length_max = 128,
                    .step = step.as<std::uint32_t>()},
      nullptr);
  synchronise();
  EXPECT_EQ(lengths.download<std::int32_t>(), (Ints{65, 65}));
  EXPECT_EQ(positions.download<std::int32_t>(), (Ints{64, 64}));
  EXPECT_EQ(slots.download<std::int32_t>(), (Ints{3 * 64, 1 * 64}));
  count_step(step.as<std::uint32_t>(), nullptr);
  synchronise();
  EXPECT_EQ(step.download<std::uint32_t>()[0], 43u);
  set_word(step.as<std::uint32_t>(), 5, nullptr);
  synchronise();
  EXPECT_EQ(step.download<std::uint32_t>()[0], 5u);
}

}  // namespace
}  // namespace tandem::cuda
