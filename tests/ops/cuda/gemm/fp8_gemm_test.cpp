// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/gemm/fp8_gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/scalar.h"
#include "ops/cuda/bench/fp8_problem.h"
#include "ops/cuda/device_memory.h"
#include "tests/ops/cuda/gpu_test.h"

namespace tandem::cuda {
namespace {

TEST(Fp8GemmPlan, FillsTheGpuWithTheShapesOfStep3) {
  const auto plan = [](int experts, int rows, int n, int k, bool swiglu) {
    return plan_fp8_gemm(experts, rows, n, k, swiglu).to_string();
  };
  EXPECT_EQ(plan(3, 128, 10240, 7168, true), "120 blocks of 128 x 256, k in 1");
  EXPECT_EQ(plan(3, 128, 7168, 5120, false), "84 blocks of 128 x 256, k in 1");
  EXPECT_EQ(plan(3, 256, 10240, 7168, true), "240 blocks of 128 x 256, k in 1");
  EXPECT_EQ(plan(3, 256, 7168, 5120, false), "336 blocks of 128 x 128, k in 1");
  EXPECT_EQ(plan(1, 128, 2560, 7168, false), "80 blocks of 128 x 128, k in 4");
  EXPECT_EQ(plan(1, 128, 16384, 2048, false), "128 blocks of 128 x 128, k in 1");
  EXPECT_EQ(plan(1, 128, 7168, 16384, false), "112 blocks of 128 x 128, k in 2");
}

// A block keeps the experts' rows in shared memory, of so many.
TEST(Fp8GemmPlan, DealsTilesOfFewExpertsOnly) {
  std::byte scratch{};
  Fp8Gemm op{};
  op.experts = kDealtExpertsMax;
  op.rows_max = 256;
  op.rows_usual = 100;
  op.n = 3072;
  op.k = 256;
  op.scratch = &scratch;
  EXPECT_TRUE(plan_of(op, kGemmMultiprocessors).dealt);
  op.experts = kDealtExpertsMax + 1;
  EXPECT_FALSE(plan_of(op, kGemmMultiprocessors).dealt);
}

// Without a guess at the rows: of more tiles than multiprocessors, in wide ones where these, too, are more.
TEST(Fp8GemmPlan, DealsMoreTilesThanMultiprocessors) {
  std::byte scratch{};
  Fp8Gemm op{};
  op.experts = 3;
  op.rows_max = 256;
  op.n = 7168;
  op.k = 5120;
  EXPECT_EQ(plan_of(op, kGemmMultiprocessors).to_string(), "336 blocks of 128 x 128, k in 1");
  op.scratch = &scratch;
  EXPECT_EQ(plan_of(op, kGemmMultiprocessors).to_string(), "132 blocks of 128 x 256, k in 1, dealt in rounds");
  op.rows_max = 128;  // 84 tiles
  EXPECT_FALSE(plan_of(op, kGemmMultiprocessors).dealt);
  op.rows_usual = 100;  // mostly
  op.rows_max = 300;
  EXPECT_TRUE(plan_of(op, kGemmMultiprocessors).dealt);
  EXPECT_FALSE(plan_of(op, kGemmMultiprocessors - 1).dealt) << "blocks would wait for some that are not there";
}

class Fp8GemmTest : public GpuTest {};

struct Case {
  const char* name;
  Fp8ProblemOptions options;
  int step = 1;
};

// Every variant of the kernel, experts without rows, rows that fill no tile.
std::vector<Case> cases() {
  return {
      {"one row", {.counts = {1}, .n = 128, .k = 128}},
      {"experts without rows", {.counts = {0, 5, 0, 64, 65, 128, 0}, .n = 256, .k = 384}, 7},
      {"nobody has rows", {.counts = {0, 0}, .rows_max = 128, .n = 256, .k = 512}},
      {"contiguous", {.counts = {3, 0, 128, 70}, .n = 384, .k = 640, .contiguous = true}, 5},
      {"wide tiles", {.counts = {100, 17}, .n = 11520, .k = 256}, 16},
      {"k in two", {.counts = {70}, .n = 5120, .k = 1024}, 8},
      {"k in two, odd columns", {.counts = {70}, .n = 640, .k = 1024}, 8},
      {"k in four", {.counts = {128}, .n = 2560, .k = 2176}, 16},
      {"k in four, many experts without rows", {.counts = {0, 9, 0}, .n = 256, .k = 2048}, 2},
      {"wide tiles, three experts", {.counts = {65, 3, 128}, .n = 7168, .k = 640}, 32},
      {"two row tiles", {.counts = {256, 129, 3, 0}, .n = 768, .k = 1152}, 16},
      {"two row tiles, experts with one and none", {.counts = {256, 129, 3, 0}, .n = 512, .k = 1152}, 16},
      {"three row tiles", {.counts = {300, 0, 150}, .n = 512, .k = 256, .contiguous = true}, 16},
      {"odd columns, three row tiles", {.counts = {300}, .n = 128, .k = 256}, 16},
      {"dealt, all left-over tiles whole",
       {.counts = {256, 129, 3, 0, 70}, .rows_usual = 100, .n = 4480, .k = 640},
       32},
      {"dealt, all wide left-over tiles whole",
       {.counts = {256, 129, 3, 0, 70}, .rows_usual = 100, .n = 3072, .k = 896},
       32},
      {"dealt, all wide left-over tiles whole, two tiles of k",
       {.counts = {256, 129, 3, 0, 70}, .rows_usual = 100, .n = 3072, .k = 256},
       32},
      {"dealt, none left over", {.counts = {256, 129, 3, 0, 70}, .rows_usual = 100, .n = 2688, .k = 640}, 32},
      {"dealt, left-over tiles in two", {.counts = {256, 3, 0, 0, 0}, .rows_usual = 100, .n = 2688, .k = 640}, 32},
      {"dealt, left-over tiles in three", {.counts = {256, 0, 0, 0, 0}, .rows_usual = 100, .n = 2688, .k = 896}, 32},
      {"dealt, left-over tiles in four",
       {.counts = {70, 0, 0, 0, 0}, .rows_max = 256, .rows_usual = 100, .n = 2688, .k = 1408},
       32},
      {"dealt, wide left-over tiles in two",
       {.counts = {256, 129, 3, 0, 0}, .rows_usual = 100, .n = 3072, .k = 640},
       32},
      {"dealt, wide left-over tiles in three",
       {.counts = {256, 70, 0, 0, 0}, .rows_usual = 100, .n = 3072, .k = 896},
       32},
      {"dealt, wide left-over tiles, too short to cut",
       {.counts = {256, 70, 0, 0, 0}, .rows_usual = 100, .n = 3072, .k = 256},
       32},
      {"dealt, three row tiles, odd columns", {.counts = {300, 64, 257}, .rows_usual = 100, .n = 4480, .k = 512}, 32},
      {"dealt, four rounds", {.counts = {300, 200, 257}, .rows_usual = 100, .n = 8960, .k = 512}, 32},
      {"dealt, four rounds, odd columns", {.counts = {300, 200, 257}, .rows_usual = 100, .n = 9088, .k = 512}, 32},
      {"dealt, more tiles than multiprocessors", {.counts = {256, 200, 129}, .n = 6144, .k = 512}, 32},
      {"dealt, after a round in four", {.counts = {256, 200, 129}, .n = 6144, .k = 1408}, 32},
      {"dealt, nine turns of one step", {.counts = {300, 300, 300, 300}, .rows_usual = 100, .n = 12928, .k = 128}, 32},
      {"dealt, ten turns with parts", {.counts = {300, 300, 300, 300}, .rows_usual = 100, .n = 12928, .k = 512}, 32},
      {"dealt, wide tiles, odd columns", {.counts = {256, 200, 257, 0}, .rows_usual = 100, .n = 9984, .k = 1408}, 32},
      {"dealt, nobody has rows", {.counts = {0, 0, 0}, .rows_max = 256, .rows_usual = 100, .n = 3072, .k = 256}},
      {"dealt, wide tiles", {.counts = {256, 256, 129}, .rows_usual = 100, .n = 10240, .k = 384}, 32},
  };
}

TEST_F(Fp8GemmTest, ProductsAgreeWithTheReference) {
  for (const Case& c : cases()) {
    Fp8Problem problem(c.options);
    problem.run(nullptr);
    problem.poison_output();
    problem.run(nullptr);  // what the first has left behind does no harm
    synchronise();
    const double error = problem.relative_error(c.step);
    std::printf("%-40s error %.2e   %s\n", c.name, error, problem.plan().to_string().c_str());
    if (std::ranges::max(c.options.counts) > 0) {
      EXPECT_LE(error, 2.5e-3) << c.name;  // bf16 alone makes 1.7e-3
    }
  }
}

TEST_F(Fp8GemmTest, RowsThatNoExpertHasAreNotWritten) {
  const std::vector<std::int32_t> counts{0, 5, 64};
  const Fp8Problem problem({.counts = counts, .rows_max = 128, .n = 256, .k = 256});
  problem.run(nullptr);
  synchronise();
  const std::vector<std::uint16_t> out = problem.output();
  for (int expert = 0; expert < 3; ++expert)
    for (int row = 0; row < 128; ++row)
      for (int column = 0; column < 256; ++column) {
        const std::uint16_t bits =
            out[static_cast<std::size_t>((std::int64_t{problem.row_begin(expert)} + row) * 256 + column)];
        if (row < counts[static_cast<std::size_t>(expert)]) {
          ASSERT_TRUE(std::isfinite(bf16_to_f32(bits)));
        } else {
          ASSERT_EQ(bits, 0xffff);
        }
      }
}

TEST_F(Fp8GemmTest, GateUpAndDownOfExperts) {
  struct {
    std::vector<std::int32_t> counts;
    bool contiguous;
    std::int32_t width = 512, rows_usual = 0;
  } const rounds[] = {{{128, 3, 0, 77}, false},
                      {{200, 256, 1}, false},
                      {{64, 0, 100, 1}, true},
                      {{200, 256, 1, 130}, false, 2560, 150},
                      {{200, 256, 1, 130}, false, 2688, 150}};
  for (const auto& round : rounds) {
    const Fp8Problem first({.counts = round.counts,
                            .rows_usual = round.rows_usual,
                            .n = 2 * round.width,
                            .k = 768,
                            .swiglu = true,
                            .contiguous = round.contiguous});
    const Fp8Problem second({.counts = round.counts,
                             .rows_usual = round.rows_usual,
                             .n = 768,
                             .k = round.width,
                             .contiguous = round.contiguous,
                             .seed = 5},
                            first);
    for (int again = 0; again < 2; ++again) {
      first.run(nullptr);
      second.run(nullptr);
    }
    synchronise();
    EXPECT_LE(first.relative_error(5), 3e-2);  // E4M3 itself
    EXPECT_LE(second.relative_error(5), 2.5e-3);
  }
}

// The gain of a norm, and where the rows before it go.
struct BeforeNorm {
  explicit BeforeNorm(const Fp8Problem& problem, std::int32_t columns) : columns(columns), rows(problem.op().x_rows) {
    std::vector<float> gains;
    gains.reserve(static_cast<std::size_t>(columns));
    for (std::int32_t i = 0; i < columns; ++i) gains.push_back(.5f + .01f * static_cast<float>(i % 100));
    gain = DeviceMemory::of(gains);
    const auto size = static_cast<std::size_t>(rows * columns);
    tiles = DeviceMemory(size);
    scales = DeviceMemory(size / 32);
    squares = DeviceMemory(size / 32);
    for (DeviceMemory* m : {&tiles, &scales, &squares}) m->fill(0xff);
  }
  Fp8BeforeNorm op() const {
    return {.gain = gain.as<float>(),
            .columns = columns,
            .tiles = tiles.as<std::uint8_t>(),
            .scales = scales.as<float>(),
            .squares = squares.as<float>()};
  }

  std::int32_t columns;
  std::int64_t rows;
  DeviceMemory gain, tiles, scales, squares;
};

// The first columns leave as rows before a norm, the others in bf16; against what they are in bf16.
TEST_F(Fp8GemmTest, ColumnsLeaveBeforeANorm) {
  struct {
    const char* name;
    std::int32_t rows, n, k, columns;
  } const rounds[] = {{"k in four", 128, 2560, 2176, 2048},
                      {"k in four, few rows", 5, 768, 2048, 512},
                      {"k in two", 70, 5120, 1024, 4096},
                      {"narrow tiles", 100, 11392, 256, 11008},
                      {"wide tiles, odd columns", 65, 22528, 256, 384},
                      {"two row tiles", 200, 2560, 1152, 2048}};
  for (const auto& round : rounds) {
    const Fp8Problem problem({.counts = {round.rows}, .n = round.n, .k = round.k});
    problem.run(nullptr);
    synchronise();
    const std::vector<std::uint16_t> wanted = problem.output();
    const BeforeNorm norm(problem, round.columns);
    Fp8Gemm op = problem.op();
    op.before_norm = norm.op();
    run(op, nullptr);
    synchronise();
    EXPECT_EQ(problem.output(), wanted) << round.name;  // of the others; these were there before
    const auto tiles = norm.tiles.download<std::uint8_t>();
    const auto scales = norm.scales.download<float>(), squares = norm.squares.download<float>();
    const auto gain = norm.gain.download<float>();
    for (std::int32_t row = 0; row < round.rows; ++row) {
      const std::vector<double> quantised = fp8_row(tiles, scales, norm.rows, row, round.columns);
      for (std::int32_t block = 0; block < round.columns / 128; ++block) {
        double largest = 0, sum = 0;
        const auto at = static_cast<std::size_t>(block * norm.rows + row);
        for (std::int32_t i = 0; i < 128; ++i) {
          const std::int32_t column = block * 128 + i;
          const double x = bf16_to_f32(wanted[static_cast<std::size_t>(row) * static_cast<std::size_t>(round.n) +
                                              static_cast<std::size_t>(column)]);
          const double y = x * static_cast<double>(gain[static_cast<std::size_t>(column)]);
          sum += x * x;
          largest = std::max(largest, std::abs(y));
          ASSERT_NEAR(quantised[static_cast<std::size_t>(column)], y,
                      std::abs(y) / 14 + static_cast<double>(scales[at]) / 400)
              << round.name << " " << row << " " << column;
        }
        ASSERT_NEAR(static_cast<double>(scales[at]) * 448, largest, 5e-3 * largest) << round.name << " " << row;
        ASSERT_NEAR(static_cast<double>(squares[at]), sum, 5e-3 * sum) << round.name << " " << row;
      }
    }
  }
}

TEST_F(Fp8GemmTest, ColumnsBeforeANormAreNotWrittenInBf16) {
  Fp8Problem problem({.counts = {70}, .n = 2560, .k = 2176});
  problem.run(nullptr);
  synchronise();
  const std::vector<std::uint16_t> wanted = problem.output();
  problem.poison_output();
  const BeforeNorm norm(problem, 2048);
  Fp8Gemm op = problem.op();
  op.before_norm = norm.op();
  run(op, nullptr);
  synchronise();
  const std::vector<std::uint16_t> out = problem.output();
  for (std::size_t i = 0; i < 70u * 2560; ++i) ASSERT_EQ(out[i], i % 2560 < 2048 ? 0xffff : wanted[i]) << i;
}

// What a product makes of rows before their norm is its result times their factor.
TEST_F(Fp8GemmTest, MultipliesByTheFactorOfANorm) {
  struct {
    const char* name;
    std::int32_t rows, n, k;
  } const rounds[] = {{"narrow tiles", 128, 16384, 256},
                      {"k in two", 70, 5120, 1024},
                      {"k in four", 3, 256, 2048},
                      {"wide tiles", 200, 16384, 384},
                      {"wide tiles, sixteen parts", 140, 16384, 2048},
                      {"one row", 1, 128, 128}};
  for (const auto& round : rounds) {
    Fp8Problem problem({.counts = {round.rows}, .n = round.n, .k = round.k});
    problem.run(nullptr);
    synchronise();
    const std::vector<std::uint16_t> plain = problem.output();
    const auto rows = static_cast<std::size_t>(problem.op().x_rows), blocks = static_cast<std::size_t>(round.k / 128);
    std::vector<float> squares(blocks * rows);
    for (std::size_t i = 0; i < squares.size(); ++i) squares[i] = .25f * static_cast<float>(i % 37 * (i % 11));
    const DeviceMemory memory = DeviceMemory::of(squares);
    problem.poison_output();
    Fp8Gemm op = problem.op();
    op.after_norm = {.squares = memory.as<float>(), .parts = round.k / 128, .epsilon = 1e-2f};
    run(op, nullptr);
    synchronise();
    const std::vector<std::uint16_t> out = problem.output();
    const auto n = static_cast<std::size_t>(round.n);
    for (std::size_t row = 0; row < static_cast<std::size_t>(round.rows); ++row) {
      double sum = 0;
      for (std::size_t block = 0; block < blocks; ++block) sum += static_cast<double>(squares[block * rows + row]);
      const double factor = 1 / std::sqrt(sum / round.k + 1e-2);
      for (std::size_t column = 0; column < n; ++column) {
        const double right = bf16_to_f32(plain[row * n + column]) * factor;
        ASSERT_NEAR(bf16_to_f32(out[row * n + column]), right, std::abs(right) / 100 + 1e-30)
            << round.name << " " << row << " " << column;
      }
    }
  }
}

// The bits of a row do not depend on how many others there are, as long as the plan is the same.
TEST_F(Fp8GemmTest, ARowKeepsItsBits) {
  const Fp8Problem few({.counts = {3}, .rows_max = 128, .n = 512, .k = 1024});
  const Fp8Problem many({.counts = {120}, .rows_max = 128, .n = 512, .k = 1024});
  few.run(nullptr);
  many.run(nullptr);
  synchronise();
  std::vector<std::uint16_t> a = few.output(), b = many.output();
  a.resize(3 * 512);
  b.resize(3 * 512);
  EXPECT_EQ(a, b);
}

}  // namespace
}  // namespace tandem::cuda
