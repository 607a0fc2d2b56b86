// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/split/expert_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "base/scalar.h"
#include "ops/cuda/device_memory.h"
#include "ops/cuda/gemm/fp8_tile.h"
#include "tests/ops/cuda/gpu_test.h"

namespace tandem::cuda {
namespace {

using Ints = std::vector<std::int32_t>;

constexpr std::int32_t kColumns = 256, kExperts = 12;

// Two attention GPUs on the rail with 70 rows each, 1,900 tokens of others; this GPU has experts 4 to 6 of 12, its
// server 0 to 8, and it computes the shared expert for the first 35 rows of each.
struct Problem {
  ExpertShare share{
      .first = 4, .count = 3, .shared_rows = 35, .server_first = 0, .server_count = 9, .row_stride = 1024};
  ExpertTokens tokens{.rail_blocks = 2, .rows = 70, .others = 1900, .top_k = 3};
  std::int32_t arrived_rows = 50;
  Ints ids;  // of all tokens
  DeviceMemory first_ids, other_ids, row_count, source, place;

  explicit Problem(unsigned seed) {
    std::mt19937 random(seed);
    for (std::int32_t token = 0; token < tokens.all(); ++token) {
      const auto first = static_cast<std::int32_t>(random() % kExperts);
      for (std::int32_t slot = 0; slot < 3; ++slot) ids.push_back((first + 5 * slot) % kExperts);
    }
    first_ids = DeviceMemory::of(Ints(ids.begin(), ids.begin() + tokens.rows * 3));
    other_ids = DeviceMemory::of(Ints(ids.begin() + tokens.rows * 3, ids.end()));
    row_count = DeviceMemory(4 * 4);
    source = DeviceMemory(static_cast<std::size_t>(4 * share.row_stride) * 4);
    place = DeviceMemory(static_cast<std::size_t>(tokens.rail() * 4) * 4);
    source.fill(0xff);
    place.fill(0xff);
  }
  PlanExpertRows plan() const {
    return {.share = share,
            .tokens = tokens,
            .first_ids = first_ids.as<std::int32_t>(),
            .ids = other_ids.as<std::int32_t>(),
            .row_count = row_count.as<std::int32_t>(),
            .source = source.as<std::int32_t>(),
            .place = place.as<std::int32_t>(),
            .arrived_rows = arrived_rows};
  }
};

class ExpertRowsTest : public GpuTest {};

TEST_F(ExpertRowsTest, RowsStandInTheOrderOfTokens) {
  const Problem p(1);
  run(p.plan(), nullptr);
  synchronise();
  const Ints count = p.row_count.download<std::int32_t>(), source = p.source.download<std::int32_t>();
  const Ints place = p.place.download<std::int32_t>();
  std::map<std::int32_t, Ints> expected;
  for (std::int32_t token = 0; token < p.tokens.all(); ++token)
    for (std::int32_t slot = 0; slot < 3; ++slot)
      expected[p.ids[static_cast<std::size_t>(token * 3 + slot)]].push_back(token);
  for (std::int32_t e = 0; e < 3; ++e) {
    const Ints& tokens = expected[p.share.first + e];
    ASSERT_EQ(count[static_cast<std::size_t>(e)], static_cast<std::int32_t>(tokens.size()));
    const auto begin = source.begin() + e * p.share.row_stride;
    EXPECT_EQ(Ints(begin, begin + static_cast<long>(tokens.size())), tokens);
  }
  EXPECT_EQ(count[3], 70);
  for (std::int32_t token = 0; token < p.tokens.rail(); ++token)
    for (std::int32_t slot = 0; slot < 3; ++slot) {
      const std::int32_t id = p.ids[static_cast<std::size_t>(token * 3 + slot)];
      const std::int32_t at = place[static_cast<std::size_t>(token * 4 + slot)];
      if (id >= 4 && id < 7) {
        ASSERT_GE(at, 0);
        EXPECT_EQ(at / p.share.row_stride, id - 4);
        EXPECT_EQ(source[static_cast<std::size_t>(at)], token);
      } else if (id < 9) {
        EXPECT_LE(at, PlanExpertRows::kArrived);
        EXPECT_GT(at, PlanExpertRows::kArrived - p.arrived_rows);
      } else {
        EXPECT_EQ(at, PlanExpertRows::kNobody);
      }
    }
  for (std::int32_t token = 0; token < p.tokens.rail(); ++token) {
    const std::int32_t at = place[static_cast<std::size_t>(token * 4 + 3)];
    if (token % 70 >= 35) {
      EXPECT_EQ(at, PlanExpertRows::kNobody);
    } else {
      EXPECT_EQ(source[static_cast<std::size_t>(at)], token);
      EXPECT_GE(at, 3 * p.share.row_stride);
    }
  }
}

// An expert that more tokens want than there is room for takes the first of them and writes nobody else's rows.
TEST_F(ExpertRowsTest, AnExpertWithoutRoomStaysInItsRows) {
  Problem p(2);
  p.share.row_stride = 128;
  run(p.plan(), nullptr);
  synchronise();
  EXPECT_EQ(p.row_count.download<std::int32_t>(), (Ints{128, 128, 128, 70}));
  const Ints source = p.source.download<std::int32_t>();
  for (std::int32_t e = 0; e < 3; ++e)
    for (std::int32_t i = 0; i < 128; ++i) {
      const std::int32_t token = source[static_cast<std::size_t>(e * 128 + i)];
      ASSERT_GE(token, 0);
      const auto first = p.ids.begin() + token * 3;
      EXPECT_NE(std::find(first, first + 3, 4 + e), first + 3);
    }
}

std::uint8_t code_of(std::int32_t row, std::int32_t column) {
  return static_cast<std::uint8_t>((row * 7 + column * 3) % 120);
}

// Tiles with code_of(first + row, column), and scales 1000 · block + row behind them.
std::vector<std::uint8_t> tiled(std::int32_t rows, std::int32_t first) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(rows) * kColumns + static_cast<std::size_t>(rows) * 2 * 4);
  for (std::int32_t row = 0; row < rows; ++row)
    for (std::int32_t c = 0; c < kColumns; ++c)
      bytes[static_cast<std::size_t>((c / 128 * (rows / 64) + row / 64) * Fp8Tile::kBytes +
                                     Fp8Tile::offset(row % 64, c % 128))] = code_of(first + row, c);
  for (std::int32_t block = 0; block < 2; ++block)
    for (std::int32_t row = 0; row < rows; ++row) {
      const float scale = static_cast<float>(1000 * block + first + row);
      std::memcpy(&bytes[static_cast<std::size_t>(rows * kColumns + (block * rows + row) * 4)], &scale, 4);
    }
  return bytes;
}

TEST_F(ExpertRowsTest, RowsAreGatheredWithTheirScales) {
  const Problem p(3);
  run(p.plan(), nullptr);
  constexpr std::int32_t kRailRows = 128, kAll = 4 * 1024, kArrivedFirst = 5000;
  std::vector<std::uint8_t> rail = tiled(kRailRows, 0);
  const auto block_bytes = static_cast<std::int64_t>(rail.size());
  const std::vector<std::uint8_t> second = tiled(kRailRows, 2000);
  rail.insert(rail.end(), second.begin(), second.end());
  const DeviceMemory device_rail = DeviceMemory::of(rail), arrived = DeviceMemory::of(tiled(kAll, kArrivedFirst));
  const DeviceMemory tiles(std::size_t{kAll} * kColumns), scales(std::size_t{kAll} * 2 * 4);
  run(GatherExpertRows{.share = p.share,
                       .tokens = p.tokens,
                       .row_count = p.row_count.as<std::int32_t>(),
                       .source = p.source.as<std::int32_t>(),
                       .rail = device_rail.as<std::uint8_t>(),
                       .rail_block_bytes = block_bytes,
                       .arrived = {.tiles = arrived.as<std::uint8_t>(),
                                   .scales =
                                       reinterpret_cast<const float*>(arrived.as<std::uint8_t>() + kAll * kColumns),
                                   .rows = kAll},
                       .rail_rows = kRailRows,
                       .tiles = tiles.as<std::uint8_t>(),
                       .scales = scales.as<float>(),
                       .columns = kColumns},
      nullptr);
  synchronise();
  const Ints count = p.row_count.download<std::int32_t>(), source = p.source.download<std::int32_t>();
  const std::vector<std::uint8_t> got = tiles.download<std::uint8_t>();
  const std::vector<float> got_scales = scales.download<float>();
  for (std::int32_t e = 0; e < 4; ++e)
    for (std::int32_t i = 0; i < count[static_cast<std::size_t>(e)]; ++i) {
      const std::int32_t row = e * 1024 + i, token = source[static_cast<std::size_t>(row)];
      const std::int32_t from = token < 70 ? token : token < 140 ? 2000 + token - 70 : kArrivedFirst + row;
      for (std::int32_t c = 0; c < kColumns; c += 17)
        ASSERT_EQ(got[static_cast<std::size_t>((c / 128 * (kAll / 64) + row / 64) * Fp8Tile::kBytes +
                                               Fp8Tile::offset(row % 64, c % 128))],
                  code_of(from, c));
      for (std::int32_t block = 0; block < 2; ++block)
        ASSERT_EQ(got_scales[static_cast<std::size_t>(block * kAll + row)], static_cast<float>(1000 * block + from));
    }
}

TEST_F(ExpertRowsTest, ResultsAreAddedWithTheirWeights) {
  const Problem p(4);
  run(p.plan(), nullptr);
  const auto value = [](std::int32_t row, std::int32_t c) { return static_cast<float>((row * 5 + c) % 64 - 32); };
  std::vector<std::uint16_t> own, arrived;
  for (std::int32_t row = 0; row < 4 * 1024; ++row)
    for (std::int32_t c = 0; c < kColumns; ++c) own.push_back(f32_to_bf16(value(row, c)));
  for (std::int32_t row = 0; row < p.arrived_rows; ++row)
    for (std::int32_t c = 0; c < kColumns; ++c) arrived.push_back(f32_to_bf16(value(row + 9999, c)));
  std::vector<float> weights;
  for (std::int32_t i = 0; i < p.tokens.rail() * 3; ++i) weights.push_back(static_cast<float>(i % 4) / 4);
  const DeviceMemory device_own = DeviceMemory::of(own), device_arrived = DeviceMemory::of(arrived);
  const DeviceMemory first = DeviceMemory::of(std::vector<float>(weights.begin(), weights.begin() + 70 * 3));
  const DeviceMemory rest = DeviceMemory::of(std::vector<float>(weights.begin() + 70 * 3, weights.end()));
  constexpr std::int64_t kBlockStride = 70 * kColumns + 64;
  const DeviceMemory out(static_cast<std::size_t>(2 * kBlockStride) * 2);
  run(CombineExpertRows{.tokens = p.tokens,
                        .place = p.place.as<std::int32_t>(),
                        .first_weights = first.as<float>(),
                        .weights = rest.as<float>(),
                        .own = device_own.as<std::uint16_t>(),
                        .arrived = device_arrived.as<std::uint16_t>(),
                        .out = out.as<std::uint16_t>(),
                        .out_block_stride = kBlockStride,
                        .columns = kColumns},
      nullptr);
  synchronise();
  const Ints place = p.place.download<std::int32_t>();
  const std::vector<std::uint16_t> got = out.download<std::uint16_t>();
  for (std::int32_t token = 0; token < p.tokens.rail(); ++token)
    for (std::int32_t c = 0; c < kColumns; ++c) {
      float sum = 0;
      for (std::int32_t slot = 0; slot <= 3; ++slot) {
        const std::int32_t at = place[static_cast<std::size_t>(token * 4 + slot)];
        if (at == PlanExpertRows::kNobody) continue;
        const float weight = slot < 3 ? weights[static_cast<std::size_t>(token * 3 + slot)] : 1;
        sum += weight * value(at >= 0 ? at : PlanExpertRows::kArrived - at + 9999, c);
      }
      ASSERT_EQ(got[static_cast<std::size_t>(token / 70 * kBlockStride + token % 70 * kColumns + c)], f32_to_bf16(sum));
    }
}

}  // namespace
}  // namespace tandem::cuda
