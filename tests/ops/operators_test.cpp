// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Every operator on every backend against the reference.
#include "ops/operators.h"

#include "tests/ops/backend_tests.h"

namespace tandem {
namespace {

class OperatorsTest : public EveryBackendTest {};

TEST_P(OperatorsTest, AgreeWithTheReference) {
  const auto reference = make_reference_backend();
  const auto cpu = backend();
  for (const OperatorCase& c : cases()) {
    const auto expected = outputs_of(c, *reference), found = outputs_of(c, *cpu);
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < found.size(); ++i)
      EXPECT_TRUE(close(found[i], expected[i], c.tolerance)) << c.name << ", output " << i;
  }
}

TEST_P(OperatorsTest, DoNotDependOnTheNumberOfThreads) {
  const auto one = backend(1), two = backend(2), three = backend(3);
  for (const OperatorCase& c : cases()) {
    const auto expected = outputs_of(c, *one), with_two = outputs_of(c, *two), with_three = outputs_of(c, *three);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_TRUE(same_bits(with_two[i], expected[i])) << c.name << ", two threads";
      EXPECT_TRUE(same_bits(with_three[i], expected[i])) << c.name << ", three threads";
    }
  }
}

TEST_P(OperatorsTest, InfinitiesAndNaNStandWhereTheReferenceHasThem) {
  const auto reference = make_reference_backend();
  const auto cpu = backend();
  const auto outputs = [](Backend& backend) {
    CaseBuilder b(backend);
    const Tensor gate_up = b.normal(1, 40), swiglu = b.zeros(1, 20);
    const float special[] = {NAN, INFINITY, -INFINITY, 1000, -1000, 88.5f, -88.5f, 0};
    for (int i = 0; i < 8; ++i) gate_up.f32()[i] = special[i];
    backend.run(SwiGlu{swiglu, gate_up});
    const Tensor x = b.normal(3, 33), norm = b.zeros(3, 33), product = b.zeros(3, 5);
    x.row<float>(0)[32] = NAN;
    x.row<float>(2)[0] = INFINITY;
    backend.run(RmsNorm{norm, x, b.normal_vector(33, 1, 0), 1e-5f});
    backend.run(MatMul{product, x, b.weight(DType::kF32, 5, 33), KSlices::whole(33)});
    return std::vector{values_of(swiglu), values_of(norm), values_of(product)};
  };
  auto expected = outputs(*reference), found = outputs(*cpu);
  // The GPU splits a factor into terms, so that an infinity gives NaN: as good a sign that the row is broken.
  if (!GetParam().cpu)
    for (auto* product : {&expected[2], &found[2]})
      for (float& value : *product)
        if (std::isinf(value)) value = NAN;
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(close(found[i], expected[i], {})) << "output " << i;
}

TEST_P(OperatorsTest, EveryF16BitPatternIsWidenedExactly) {
  // A row for each of the 65536 patterns, times one.
  const auto cpu = backend();
  CaseBuilder b(*cpu);
  StoredMatrix stored{DType::kF16, 1 << 16, 1, std::vector<std::byte>(2 << 16), {}};
  for (std::uint32_t bits = 0; bits < (1 << 16); ++bits)
    store_u16(&stored.bytes[2 * bits], static_cast<std::uint16_t>(bits));
  const auto weight = cpu->pack({{stored.part()}, 1});
  const Tensor x = b.zeros(1, 1), out = b.zeros(1, 1 << 16);
  x.f32()[0] = 1;
  cpu->run(MatMul{out, x, weight.get(), KSlices::whole(1)});
  std::vector<float> expected(1 << 16);
  dequantise(DType::kF16, stored.bytes.data(), expected.size(), expected.data());
  std::vector<float> found = values_of(out);
  if (!GetParam().cpu)  // see above
    for (std::size_t i = 0; i < found.size(); ++i)
      if (std::isinf(expected[i])) expected[i] = NAN;
  EXPECT_TRUE(close(found, expected, kExact));
}

TEST_P(OperatorsTest, EveryF8BitPatternIsWidenedAndScaledExactly) {
  const auto cpu = backend();
  CaseBuilder b(*cpu);
  StoredMatrix stored{DType::kF8E4M3, 256, 1, std::vector<std::byte>(256), {{0.3f, 1e5f}, 0, 1}};
  for (int bits = 0; bits < 256; ++bits) stored.bytes[static_cast<std::size_t>(bits)] = static_cast<std::byte>(bits);
  const auto weight = cpu->pack({{stored.part()}, 1});
  const Tensor x = b.zeros(1, 1), out = b.zeros(1, 256);
  x.f32()[0] = 1;
  cpu->run(MatMul{out, x, weight.get(), KSlices::whole(1)});
  std::vector<float> expected(256);
  for (int row = 0; row < 256; ++row) read_row(stored.part(), row, 1, &expected[static_cast<std::size_t>(row)]);
  EXPECT_TRUE(close(values_of(out), expected, kExact));
}

// What MLA is for: a token's latent and its rotated key, once, for all 128 heads.
TEST(Work, DecodeWithMlaReads576ValuesPerTokenAndLayer) {
  constexpr std::int32_t kHeads = 128, kLatent = 512, kRotated = 64, kContext = 4000;
  const auto backend = make_reference_backend();
  CaseBuilder b(*backend);
  KvCache& cache = b.cache({1, 1, kLatent + kRotated, kLatent, DType::kBF16, 1, true});
  const PagedAttention op{.out = b.zeros(1, kHeads * kLatent),
                          .q = b.zeros(1, kHeads * (kLatent + kRotated)),
                          .block_table = b.ids({0}, {1, 1}),
                          .sequences = b.ids({0}),
                          .positions = b.ids({kContext - 1}),
                          .cache = &cache,
                          .layer = 0,
                          .heads = kHeads,
                          .scale = 1,
                          .context_tokens = kContext};
  EXPECT_EQ(work(op).bytes_read, kContext * 576 * 2 + op.q.shape.elements() * 4);
  EXPECT_EQ(cache.spec().token_bytes(), 576u * 2);
  const AppendKv append{b.zeros(1, 576), {}, b.ids({0}), &cache, 0};
  EXPECT_EQ(work(append).bytes_written, 576 * 2);
}

INSTANTIATE_TEST_SUITE_P(All, OperatorsTest, testing::ValuesIn(backends_under_test()), backend_name);

}  // namespace
}  // namespace tandem
