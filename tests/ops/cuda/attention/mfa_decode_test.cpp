// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention/mfa_decode.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/scalar.h"
#include "ops/cuda/attention/mfa_page.h"
#include "ops/cuda/attention/mfa_prepare.h"
#include "ops/cuda/bench/mfa_problem.h"
#include "ops/cuda/bench/random_fill.h"
#include "ops/cuda/bench/scheduled_work.h"
#include "ops/cuda/gemm/fp8_quantise.h"
#include "ops/cuda/gemm/fp8_tile.h"
#include "tests/ops/cuda/gpu_test.h"

namespace tandem::cuda {
namespace {

class MfaTest : public GpuTest {};

struct Case {
  const char* name;
  std::vector<std::int32_t> lengths;
  float score_deviation = 1, v_mean = 0;
  bool sink = false, deterministic = false;
  std::vector<std::int32_t> compared{0};
  MfaCache cache = MfaCache::kFp8;
};

std::vector<Case> cases() {
  return {
      {"one token", {1}},
      {"63 and 64 and 65 and 128", {63, 64, 65, 128, 129}, 1, .5f, false, false, {0, 1, 2, 3, 4}},
      {"flat scores", {4096, 4096}, .5f, .5f},
      {"deviation 1", {4096}, 1, .5f},
      {"deviation 2", {4096}, 2, .5f},
      {"deviation 4", {4096}, 4, .5f},
      {"deviation 4, V without a mean", {4096}, 4},
      {"sink", {4096, 300}, 1, .5f, true, false, {0, 1}},
      {"sink, 32K", {32768}, 1, .5f, true},
      {"32K", {32768}, 1, .5f},
      {"64K, fixed splits", {65536}, 1, .5f, false, true},
      {"64K, sink", {65536}, .5f, .5f, true},
      {"not split: a block for each", std::vector<std::int32_t>(132, 640), 1, .5f, false, false, {0, 131}},
      {"several pieces a block", std::vector<std::int32_t>(300, 200), 1, .5f, false, false, {0, 7, 150, 299}},
      {"ragged", ragged(90, 3000), 1, .5f, false, false, {0, 1, 2, 3, 45, 89}},
      {"ragged, fixed splits", ragged(40, 9000), 2, .5f, false, true, {0, 1, 2, 39}},
      {"bf16, one token", {1}, 1, 0, false, false, {0}, MfaCache::kBf16},
      {"bf16, 63 and 64 and 65 and 128",
       {63, 64, 65, 128, 129},
       1,
       .5f,
       false,
       false,
       {0, 1, 2, 3, 4},
       MfaCache::kBf16},
      {"bf16, deviation 4", {4096}, 4, .5f, false, false, {0}, MfaCache::kBf16},
      {"bf16, 64K, sink", {65536}, .5f, .5f, true, false, {0}, MfaCache::kBf16},
      {"bf16, several pieces a block",
       std::vector<std::int32_t>(300, 200),
       1,
       .5f,
       false,
       false,
       {0, 150, 299},
       MfaCache::kBf16},
      {"bf16, ragged", ragged(90, 3000), 1, .5f, false, false, {0, 1, 2, 3, 45, 89}, MfaCache::kBf16},
      {"bf16, ragged, fixed splits", ragged(40, 9000), 2, .5f, false, true, {0, 1, 2, 39}, MfaCache::kBf16},
  };
}

TEST_F(MfaTest, AgreesWithTheReferenceOverTheSameCache) {
  for (const Case& c : cases()) {
    MfaProblem problem({.cache = c.cache,
                        .lengths = c.lengths,
                        .score_deviation = c.score_deviation,
                        .v_mean = c.v_mean,
                        .sink = c.sink,
                        .deterministic = c.deterministic});
    problem.poison_output();
    problem.run(nullptr, 0);
    synchronise();
    const double error = problem.relative_error(c.compared);
    std::printf("%-30s error %.2e   %s\n", c.name, error, problem.schedule().to_string().c_str());
    EXPECT_LE(error, 7e-3) << c.name;  // NaN fails as well
    for (const std::uint16_t bits : problem.output()) ASSERT_TRUE(std::isfinite(bf16_to_f32(bits))) << c.name;
  }
}

TEST_F(MfaTest, NothingToDoIsDone) {
  run(MfaDecode{}, nullptr);
  run(MfaPrepare{}, nullptr);
  synchronise();
}

// The bits of a sequence with fixed splits depend neither on its neighbours nor on the number of blocks.
TEST_F(MfaTest, FixedSplitsGiveTheSameBitsInAnyCompany) {
  std::vector<std::int32_t> lengths{5000};
  const MfaProblemOptions alone{.lengths = lengths, .v_mean = .5f, .deterministic = true, .blocks = 7};
  MfaProblem one(alone);
  one.run(nullptr, 0);
  synchronise();
  const std::vector<std::uint16_t> expected = one.output();
  for (int i = 0; i < 50; ++i) lengths.push_back(100 * i + 1);
  // The same seed gives the first sequence the same numbers as long as it comes first.
  MfaProblem many({.lengths = lengths, .v_mean = .5f, .deterministic = true});
  many.run(nullptr, 0);
  synchronise();
  std::vector<std::uint16_t> first = many.output();
  first.resize(expected.size());
  EXPECT_EQ(first, expected);
}

TEST_F(MfaTest, RunsAreEqualToTheBit) {
  MfaProblem problem({.lengths = ragged(200, 2000), .v_mean = .5f});
  problem.run(nullptr, 0);
  synchronise();
  const std::vector<std::uint16_t> once = problem.output();
  for (int i = 0; i < 20; ++i) {
    problem.poison_output();
    problem.run(nullptr, 0);
    synchronise();
    ASSERT_EQ(problem.output(), once) << "run " << i;
  }
}

// The rows of the next product are what quantising the output in bf16 gives, to the bit, with and without partial
// results.
TEST_F(MfaTest, GoesIntoTheRowsOfTheNextProduct) {
  constexpr std::int32_t kColumns = MfaPage::kHeads * MfaPage::kDim;
  for (const MfaCache cache : {MfaCache::kFp8, MfaCache::kBf16})
    for (const std::vector<std::int32_t>& lengths :
         {std::vector<std::int32_t>(130, 200), std::vector<std::int32_t>{5000, 1, 700}}) {
      const MfaProblem problem({.cache = cache, .lengths = lengths, .v_mean = .5f});
      const auto rows = static_cast<std::int32_t>(lengths.size());
      const std::int64_t tile_rows = Fp8Tile::whole_tiles(rows);
      const std::size_t bytes = static_cast<std::size_t>(tile_rows) * kColumns;
      DeviceMemory tiles(bytes), scales(bytes / 32), wanted_tiles(bytes), wanted_scales(bytes / 32);
      for (DeviceMemory* m : {&tiles, &scales, &wanted_tiles, &wanted_scales}) m->fill(0xff);
      problem.run(nullptr, 0);
      run(QuantiseTiles{.tiles = wanted_tiles.as<std::uint8_t>(),
                        .scales = wanted_scales.as<float>(),
                        .x = problem.decode(0).out,
                        .bf16 = true,
                        .rows = rows,
                        .columns = kColumns,
                        .tile_rows = tile_rows},
          nullptr);
      MfaDecode decode = problem.decode(0);
      decode.o_tiles = tiles.as<std::uint8_t>();
      decode.o_scales = scales.as<float>();
      decode.o_tile_rows = tile_rows;
      decode.sequences = rows;
      run(decode, nullptr);
      synchronise();
      EXPECT_EQ(tiles.download<std::uint8_t>(), wanted_tiles.download<std::uint8_t>()) << rows;
      EXPECT_EQ(scales.download<std::uint32_t>(), wanted_scales.download<std::uint32_t>()) << rows;
      EXPECT_EQ(problem.schedule().merges.empty(), rows == 130);
    }
}

// NaN in one sequence's cache stays there.
TEST_F(MfaTest, NanOfOneSequenceDoesNotReachAnother) {
  constexpr int kDim = MfaPage::kDim;
  DeviceMemory page(3 * MfaPage::kBytes);
  page.fill(0);
  const auto slot_rows = std::vector<std::int32_t>{0, 64, 128};
  std::vector<float> kv(3 * kDim, 1.f);
  for (int d = 0; d < kDim; ++d) kv[kDim + d] = NAN;
  std::vector<float> q(3 * 64 * kDim, .1f);
  const DeviceMemory kv_memory = DeviceMemory::of(kv), q_memory = DeviceMemory::of(q),
                     slots = DeviceMemory::of(slot_rows),
                     positions = DeviceMemory::of(std::vector<std::int32_t>{0, 0, 0}),
                     inv_freq = DeviceMemory::of(std::vector<float>(128, 1.f)),
                     table = DeviceMemory::of(std::vector<std::int32_t>{0, 1, 2}),
                     lengths = DeviceMemory::of(std::vector<std::int32_t>{1, 1, 1});
  DeviceMemory tiles(3 * 2 * 64 * kDim), scales(3 * 64 * 4), out(3 * 64 * kDim * 2);
  MfaPrepare prepare{};
  prepare.q_tiles = tiles.as<std::uint8_t>();
  prepare.q_scales = scales.as<float>();
  prepare.pages = page.as<std::uint8_t>();
  prepare.page_stride = MfaPage::kBytes;
  prepare.q = q_memory.as<float>();
  prepare.k = prepare.v = kv_memory.as<float>();
  prepare.q_stride = 64 * kDim;
  prepare.k_stride = prepare.v_stride = kDim;
  prepare.positions = positions.as<std::int32_t>();
  prepare.slots = slots.as<std::int32_t>();
  prepare.inv_freq = inv_freq.as<float>();
  prepare.rows = 3;
  run(prepare, nullptr);
  const ScheduledWork scheduled(std::vector<std::int32_t>{1, 1, 1}, {.blocks = 1}, {});
  MfaDecode decode{};
  decode.out = out.as<std::uint16_t>();
  decode.q_tiles = tiles.as<std::uint8_t>();
  decode.q_scales = scales.as<float>();
  decode.pages = page.as<std::uint8_t>();
  decode.page_stride = MfaPage::kBytes;
  decode.block_table = table.as<std::int32_t>();
  decode.blocks_max = 1;
  decode.lengths = lengths.as<std::int32_t>();
  decode.scale = 1.f / 16;
  decode.work = scheduled.work();
  run(decode, nullptr);
  synchronise();
  const std::vector<std::uint16_t> result = out.download<std::uint16_t>();
  for (std::size_t i = 0; i < result.size(); ++i) {
    const bool poisoned = i / (64 * kDim) == 1;
    ASSERT_EQ(std::isnan(bf16_to_f32(result[i])), poisoned) << i;
    if (!poisoned) {
      ASSERT_NEAR(bf16_to_f32(result[i]), 1.f, .01f) << i;
    }
  }
}

}  // namespace
}  // namespace tandem::cuda
