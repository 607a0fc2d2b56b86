// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Pages: what is appended comes out in the canonical form, the same on every backend, and goes back in.
#include "ops/page_format.h"

#include "base/error.h"
#include "tests/ops/backend_tests.h"

namespace tandem {
namespace {

constexpr KvSpec kSpecs[] = {{2, 3, 64, 64, DType::kBF16, 3},         {1, 2, 20, 12, DType::kBF16, 3},
                             {2, 1, 16, 48, DType::kF32, 3},          {1, 2, 6, 10, DType::kF32, 3},
                             {2, 1, 80, 64, DType::kBF16, 3, true},   {2, 2, 22, 13, DType::kF32, 3, true},
                             {2, 1, 256, 256, DType::kBF16, 3},       {1, 2, 256, 256, DType::kBF16, 3},
                             {2, 3, 64, 64, DType::kF8E4M3, 3},       {1, 2, 20, 12, DType::kF8E4M3, 3},
                             {2, 1, 80, 64, DType::kF8E4M3, 3, true}, {2, 2, 256, 256, DType::kF8E4M3, 3},
                             {2, 1, 576, 512, DType::kBF16, 3, true}};

// Of a backend. The CPU has no FP8 cache.
std::vector<KvSpec> specs(const BackendUnderTest& backend) {
  std::vector<KvSpec> all(std::begin(kSpecs), std::end(kSpecs));
  if (backend.cpu) std::erase_if(all, [](const KvSpec& spec) { return spec.dtype == DType::kF8E4M3; });
  return all;
}

// A cache with random values in some slots of block 1.
KvCache& filled_cache(CaseBuilder& b, const KvSpec& spec) {
  KvCache& cache = b.cache(spec);
  for (std::int32_t layer = 0; layer < spec.layers; ++layer) {
    const Tensor k = b.normal(5, spec.kv_heads * spec.k_dim);
    const Tensor v = spec.v_in_k ? Tensor() : b.normal(5, spec.kv_heads * spec.v_dim);
    k.row<float>(1)[0] = NAN;
    (v ? v : k).row<float>(2)[0] = -INFINITY;
    b.backend().run(AppendKv{k, v, b.ids({64, 70, 127, 99, 65}), &cache, layer});
  }
  return cache;
}

std::vector<std::byte> exported(Backend& backend, const KvCache& cache, std::int32_t block) {
  std::vector<std::byte> page(page_bytes(cache.spec()), std::byte{0xcc});
  backend.export_page(cache, block, page);
  return page;
}

class PagesTest : public EveryBackendTest {};

TEST_P(PagesTest, AreThoseOfTheReference) {
  const auto reference = make_reference_backend();
  const auto cpu = backend();
  for (const KvSpec& spec : specs(GetParam())) {
    CaseBuilder a(*reference), b(*cpu);
    KvCache& expected = filled_cache(a, spec);
    KvCache& found = filled_cache(b, spec);
    for (std::int32_t block = 0; block < 3; ++block)
      EXPECT_EQ(exported(*cpu, found, block), exported(*reference, expected, block));
  }
}

TEST_P(PagesTest, ComeBackAsTheyWere) {
  const auto cpu = backend();
  for (const KvSpec& spec : specs(GetParam())) {
    CaseBuilder b(*cpu);
    KvCache& cache = filled_cache(b, spec);
    const std::vector<std::byte> page = exported(*cpu, cache, 1), empty = exported(*cpu, cache, 0);
    cpu->import_page(cache, 2, page);
    EXPECT_EQ(exported(*cpu, cache, 2), page);
    cpu->zero_block(cache, 1);
    EXPECT_EQ(exported(*cpu, cache, 1), empty);
    EXPECT_EQ(exported(*cpu, cache, 2), page) << "zeroing touched another block";
  }
}

TEST_P(PagesTest, OfAnotherCacheAreRefusedUntouched) {
  const auto cpu = backend();
  CaseBuilder b(*cpu);
  KvCache& cache = filled_cache(b, kSpecs[0]);
  const std::vector<std::byte> before = exported(*cpu, cache, 1);
  KvSpec other = kSpecs[0];
  other.k_dim = 62;
  other.v_dim = 66;
  EXPECT_THROW(cpu->import_page(cache, 1, exported(*cpu, b.cache(other), 0)), Error);
  KvSpec latent = kSpecs[0];  // as many bytes, another meaning
  latent.k_dim = 128;
  latent.v_in_k = true;
  EXPECT_THROW(cpu->import_page(cache, 1, exported(*cpu, b.cache(latent), 0)), Error);
  std::vector<std::byte> broken = exported(*cpu, cache, 0);
  broken[0] ^= std::byte{1};
  EXPECT_THROW(cpu->import_page(cache, 1, broken), Error);
  broken.resize(broken.size() - 1);
  EXPECT_THROW(cpu->import_page(cache, 1, broken), Error);
  EXPECT_EQ(exported(*cpu, cache, 1), before);
}

INSTANTIATE_TEST_SUITE_P(All, PagesTest, testing::ValuesIn(backends_under_test()), backend_name);

}  // namespace
}  // namespace tandem
