// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Invariants of bits: a row does not depend on its neighbours, a sum not on who computes which part of it, and NaN
// stays in the row it came from.
#include <algorithm>
#include <numeric>

#include "tests/ops/backend_tests.h"

namespace tandem {
namespace {

class BitsTest : public EveryBackendTest {};

// Each row alone, in batches of every size (or every step-th), and in a grouped product.
template <class Product, class Grouped>
void expect_rows_without_neighbours(Backend& backend, DType dtype, std::int64_t columns, const KSlices& slices,
                                    int step = 1) {
  constexpr int kRowsMax = 67;
  CaseBuilder b(backend);
  const std::int64_t width = slices.bounds[slices.count];
  const Weight* weight = b.weight(dtype, columns, width);
  const Tensor x = b.normal(kRowsMax, width), alone = b.zeros(kRowsMax, columns), together = b.zeros(kRowsMax, columns),
               grouped = b.zeros(kRowsMax, columns);
  for (int r = 0; r < kRowsMax; ++r) backend.run(Product{alone.slice_rows(r, 1), x.slice_rows(r, 1), weight, slices});
  for (int rows = 1; rows <= kRowsMax; rows += step) {
    backend.run(Product{together.slice_rows(0, rows), x.slice_rows(0, rows), weight, slices});
    ASSERT_TRUE(same_bits(values_of(together.slice_rows(0, rows)), values_of(alone.slice_rows(0, rows))))
        << name(dtype) << ", " << rows << " rows";
  }
  const Weight* const experts[] = {weight, weight, weight};
  backend.run(Grouped{grouped, x, experts, b.ids({0, 3, 3, kRowsMax}), slices});
  EXPECT_TRUE(same_bits(values_of(grouped), values_of(alone))) << name(dtype) << ", grouped";
}

// The two halves of the width computed by different workers, each with its own part of the weight.
template <class Product>
void expect_halves_to_add_up(Backend& backend, DType dtype, std::int64_t width, std::int64_t columns = 40) {
  constexpr int kRows = 13;
  const std::int64_t granule = granule_of(dtype), middle = width_slice_begin(width, granule, 4);
  CaseBuilder b(backend);
  const StoredMatrix stored = random_matrix(b.rng(), dtype, columns, width);
  const Tensor x = b.normal(kRows, width), expected = b.zeros(kRows, columns), found = b.zeros(kRows, columns);
  const auto weight = backend.pack({{stored.part()}, width});
  backend.run(Product{expected, x, weight.get(), width_slices(width, granule, 0, 8)});

  Tensor partials[2];
  std::unique_ptr<Weight> halves[2];
  for (int half = 0; half < 2; ++half) {
    const std::int64_t begin = half == 0 ? 0 : middle, count = half == 0 ? middle : width - middle;
    WeightPart part = stored.part();
    part.data += row_bytes(dtype, static_cast<std::size_t>(begin));
    if (dtype == DType::kF8E4M3)
      part.scales.values.erase(part.scales.values.begin(), part.scales.values.begin() + begin / kScaleBlock);
    halves[half] = backend.pack({{part}, count});
    partials[half] = b.zeros(kRows, columns);
    backend.run(Product{partials[half], x.slice_columns(begin, count), halves[half].get(),
                        width_slices(width, granule, 4 * half, 4)});
  }
  const std::int32_t slice_counts[] = {4, 4};
  backend.run(CombineExperts{found, {}, 0, partials, slice_counts});
  EXPECT_TRUE(same_bits(values_of(found), values_of(expected))) << name(dtype) << ", width " << width;
}

template <class Product>
void expect_nan_to_stay(Backend& backend, DType dtype, std::int64_t columns = 40) {
  CaseBuilder b(backend);
  const int k = whole_blocks(dtype, 64);
  const Weight* weight = b.weight(dtype, columns, k);
  const Tensor x = b.normal(20, k), clean = b.zeros(20, columns), out = b.zeros(20, columns);
  backend.run(Product{clean, x, weight, KSlices::whole(k)});
  x.row<float>(7)[3] = NAN;
  x.row<float>(12)[k - 1] = INFINITY;
  backend.run(Product{out, x, weight, KSlices::whole(k)});
  for (const int row : {6, 8, 11, 13, 19})
    EXPECT_TRUE(same_bits(values_of(out.slice_rows(row, 1)), values_of(clean.slice_rows(row, 1)))) << name(dtype);
  for (const float value : values_of(out.slice_rows(7, 1))) EXPECT_TRUE(std::isnan(value)) << name(dtype);
  for (const float value : values_of(out.slice_rows(12, 1))) EXPECT_FALSE(std::isfinite(value)) << name(dtype);
}

KSlices three_granules(DType dtype) {
  return eight_slices(dtype, 3 * granule_of(dtype));
}

TEST_P(BitsTest, ARowOfAProductIsTheSameInEveryBatch) {
  const auto any = backend();
  for (const DType dtype : kWeightTypes)
    expect_rows_without_neighbours<MatMul, GroupedMatMul>(*any, dtype, 50, three_granules(dtype));
  expect_rows_without_neighbours<MatMul, GroupedMatMul>(*any, DType::kBF16, 50, {4, {0, 1, 1, 50, 101}});
}

TEST_P(BitsTest, SoIsOneOfAWideProductWhoseSumsAreCutInParts) {
  const auto any = backend();
  for (const KSlices& slices : {KSlices::whole(2112), eight_slices(DType::kBF16, 768)})
    expect_rows_without_neighbours<MatMul, GroupedMatMul>(*any, DType::kBF16, 260, slices, 11);
}

TEST_P(BitsTest, HalvesOfTheWidthAddUpToTheWhole) {
  const auto any = backend();
  for (const DType dtype : kWeightTypes)
    for (const int granules : {3, 11}) expect_halves_to_add_up<MatMul>(*any, dtype, granules * granule_of(dtype));
  for (const int width : {768, 16500}) expect_halves_to_add_up<MatMul>(*any, DType::kBF16, width, 260);
}

TEST_P(BitsTest, NaNInARowOfAProductStaysThere) {
  const auto any = backend();
  for (const DType dtype : kWeightTypes) expect_nan_to_stay<MatMul>(*any, dtype);
  expect_nan_to_stay<MatMul>(*any, DType::kBF16, 260);
}

TEST_P(BitsTest, SoItIsWithInt8Products) {
  if (!GetParam().cpu) GTEST_SKIP() << "int8 arithmetic is the CPU's";
  const auto cpu = backend();
  for (const DType dtype : kQuantisedTypes) {
    expect_rows_without_neighbours<Int8MatMul, Int8GroupedMatMul>(*cpu, dtype, 50, three_granules(dtype));
    for (const int granules : {3, 11}) expect_halves_to_add_up<Int8MatMul>(*cpu, dtype, granules * granule_of(dtype));
    expect_nan_to_stay<Int8MatMul>(*cpu, dtype);
  }
}

struct CacheKind {
  DType dtype;
  bool v_in_k = false;
  std::int32_t window = 0, dim = 32;
  std::int32_t v_dim = dim, kv_heads = 2;
  bool is_fp8() const { return dtype == DType::kF8E4M3; }
};
constexpr CacheKind kCacheKinds[] = {{DType::kBF16},
                                     {DType::kF32},
                                     {DType::kBF16, true},
                                     {DType::kF32, true},
                                     {DType::kBF16, false, 70},
                                     {DType::kF32, false, 24},
                                     {DType::kBF16, true, 24},
                                     {DType::kF8E4M3},
                                     {DType::kF8E4M3, true, 24},
                                     {DType::kBF16, false, 0, 64},
                                     {DType::kBF16, false, 0, 128},
                                     {DType::kBF16, false, 70, 128},
                                     {DType::kBF16, false, 0, 256},
                                     {DType::kBF16, false, 70, 256},
                                     {DType::kF8E4M3, false, 0, 256},
                                     {DType::kF8E4M3, false, 24, 256},
                                     {DType::kBF16, true, 0, 576, 512, 1},
                                     {DType::kBF16, true, 70, 576, 512, 1}};

// Of a backend. The CPU has no FP8 cache.
std::vector<CacheKind> cache_kinds(const BackendUnderTest& backend) {
  std::vector<CacheKind> kinds(std::begin(kCacheKinds), std::end(kCacheKinds));
  if (backend.cpu) std::erase_if(kinds, &CacheKind::is_fp8);
  return kinds;
}

// One sequence of so many tokens in the given blocks, asked by any of its rows.
class Sequence {
 public:
  static constexpr std::int32_t kTokens = 150, kHeads = 6;

  Sequence(CaseBuilder& b, const CacheKind& kind, const std::vector<std::int32_t>& blocks,
           std::int32_t tokens = kTokens)
      : b_(b),
        kind_(kind),
        tokens_(tokens),
        cache_(b.cache({1, kind.kv_heads, kind.dim, kind.v_dim, kind.dtype, 20, kind.v_in_k})),
        table_(b.ids(blocks, {1, static_cast<std::int64_t>(blocks.size())})) {
    Rng rng(7);
    k_ = b.zeros(tokens, kind.kv_heads * kind.dim);
    v_ = b.zeros(tokens, kind.kv_heads * kind.v_dim);
    q_ = b.zeros(tokens, kHeads * kind.dim);
    for (const Tensor& t : {k_, v_, q_})
      for (std::int64_t i = 0; i < t.shape.elements(); ++i) t.f32()[i] = rng.normal();
  }

  Tensor k() const { return k_; }
  Tensor v() const { return v_; }
  KvCache& cache() { return cache_; }

  void append() {
    std::vector<std::int32_t> slots;
    for (std::int32_t t = 0; t < tokens_; ++t)
      slots.push_back(table_.as<std::int32_t>()[t / kBlockTokens] * kBlockTokens + t % kBlockTokens);
    b_.backend().run(AppendKv{k_, kind_.v_in_k ? Tensor() : v_, b_.ids(slots), &cache_, 0});
  }

  // Attention of rows [begin, begin + count), in one operator.
  std::vector<float> ask(std::int32_t begin, std::int32_t count) {
    const Tensor out = b_.zeros(count, kHeads * kind_.v_dim);
    std::vector<std::int32_t> positions(static_cast<std::size_t>(count));
    std::iota(positions.begin(), positions.end(), begin);
    std::int64_t context = 0;
    for (std::int32_t t = begin; t < begin + count; ++t)
      context += kind_.window > 0 ? std::min(t + 1, kind_.window) : t + 1;
    const PagedAttention op{out,
                            q_.slice_rows(begin, count),
                            table_,
                            b_.ids(std::vector<std::int32_t>(positions.size())),
                            b_.ids(positions),
                            &cache_,
                            0,
                            kHeads,
                            0.2f,
                            context,
                            kind_.window};
    validate(op);
    b_.backend().run(op);
    return values_of(out);
  }

 private:
  CaseBuilder& b_;
  const CacheKind kind_;
  const std::int32_t tokens_;
  KvCache& cache_;
  Tensor table_, k_, v_, q_;
};

std::vector<float> row_of(const std::vector<float>& values, std::int32_t row, const CacheKind& kind) {
  const std::int32_t columns = Sequence::kHeads * kind.v_dim;
  return {values.begin() + row * columns, values.begin() + (row + 1) * columns};
}

TEST_P(BitsTest, ARowOfAttentionIsTheSameInEveryChunkThreadCountAndPlace) {
  const auto cpu = backend(2), three = backend(3);
  for (const CacheKind& kind : cache_kinds(GetParam())) {
    CaseBuilder b(*cpu), elsewhere(*three);
    Sequence here(b, kind, {0, 1, 2}), there(elsewhere, kind, {7, 2, 5});
    here.append();
    there.append();
    const std::vector<float> expected = here.ask(0, Sequence::kTokens);
    EXPECT_TRUE(same_bits(there.ask(0, Sequence::kTokens), expected));
    for (std::int32_t t = 0; t < Sequence::kTokens; ++t)
      ASSERT_TRUE(same_bits(here.ask(t, 1), row_of(expected, t, kind))) << "token " << t;
    for (const std::int32_t begin : {0, 60, 101}) {
      const std::vector<float> chunk = there.ask(begin, 37);
      for (std::int32_t i = 0; i < 37; ++i)
        ASSERT_TRUE(same_bits(row_of(chunk, i, kind), row_of(expected, begin + i, kind))) << begin + i;
    }
  }
}

// So it is over contexts that a GPU cuts into parts, which it adds up in one kernel or in another.
TEST_P(BitsTest, ARowOfALongContextIsTheSameAloneAndInAChunk) {
  constexpr std::int32_t kTokens = 1100;
  const auto any = backend();
  for (const std::int32_t dim : {64, 128})
    for (const std::int32_t window : {0, 600}) {
      const CacheKind kind{DType::kBF16, false, window, dim};
      CaseBuilder b(*any);
      std::vector<std::int32_t> blocks(kTokens / kBlockTokens + 1);
      std::iota(blocks.rbegin(), blocks.rend(), 0);
      Sequence sequence(b, kind, blocks, kTokens);
      sequence.append();
      for (const auto& [begin, count] : {std::pair{500, 30}, {1000, 100}}) {
        const std::vector<float> chunk = sequence.ask(begin, count);
        for (const std::int32_t i : {0, 11, 12, count - 1})
          EXPECT_TRUE(same_bits(sequence.ask(begin + i, 1), row_of(chunk, i, kind)))
              << dim << " wide, window " << window << ", token " << begin + i;
      }
    }
}

TEST_P(BitsTest, NaNOfLaterTokensAndStaleSlotsReachesNoEarlierRow) {
  constexpr std::int32_t kBroken = 70;
  const auto cpu = backend();
  for (const CacheKind& kind : cache_kinds(GetParam())) {
    CaseBuilder b(*cpu);
    Sequence sequence(b, kind, {0, 1, 2});
    sequence.append();
    const std::vector<float> clean = sequence.ask(0, Sequence::kTokens);
    for (std::int32_t t = kBroken; t < Sequence::kTokens; ++t) {
      std::fill_n(sequence.k().row<float>(t), sequence.k().shape[1], NAN);
      std::fill_n(sequence.v().row<float>(t), sequence.v().shape[1], t % 2 == 0 ? NAN : INFINITY);
    }
    sequence.append();
    const std::vector<float> found = sequence.ask(0, Sequence::kTokens);
    for (std::int32_t t = 0; t < kBroken; ++t)
      ASSERT_TRUE(same_bits(row_of(found, t, kind), row_of(clean, t, kind))) << "token " << t;
    for (std::int32_t t = kBroken; t < Sequence::kTokens; ++t)
      EXPECT_TRUE(std::isnan(row_of(found, t, kind)[0])) << "token " << t;
  }
}

// Nor do tokens that the window has left behind.
TEST_P(BitsTest, NaNBeforeTheWindowReachesNoLaterRow) {
  constexpr std::int32_t kBroken = 40;  // tokens before it
  const auto cpu = backend();
  for (const CacheKind& kind : cache_kinds(GetParam())) {
    if (kind.window == 0) continue;
    CaseBuilder b(*cpu);
    Sequence sequence(b, kind, {0, 1, 2});
    sequence.append();
    const std::vector<float> clean = sequence.ask(0, Sequence::kTokens);
    for (std::int32_t t = 0; t < kBroken; ++t) {
      std::fill_n(sequence.k().row<float>(t), sequence.k().shape[1], NAN);
      std::fill_n(sequence.v().row<float>(t), sequence.v().shape[1], INFINITY);
    }
    sequence.append();
    const std::vector<float> found = sequence.ask(0, Sequence::kTokens);
    for (std::int32_t t = kBroken + kind.window - 1; t < Sequence::kTokens; ++t)
      ASSERT_TRUE(same_bits(row_of(found, t, kind), row_of(clean, t, kind))) << "token " << t;
    EXPECT_TRUE(std::isnan(row_of(found, kBroken + kind.window - 2, kind)[0]));
  }
}

INSTANTIATE_TEST_SUITE_P(All, BitsTest, testing::ValuesIn(backends_under_test()), backend_name);

}  // namespace
}  // namespace tandem
