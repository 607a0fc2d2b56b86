// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention/mfa_prepare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "base/scalar.h"
#include "ops/cuda/attention/mfa_page.h"
#include "ops/cuda/device_memory.h"
#include "tests/ops/cuda/gpu_test.h"

namespace tandem::cuda {
namespace {

constexpr int kDim = MfaPage::kDim, kTokens = MfaPage::kTokens;

TEST(MfaPage, EveryByteHasOnePlace) {
  std::set<int> places;
  for (int token = 0; token < kTokens; ++token)
    for (int dim = 0; dim < kDim; ++dim) {
      places.insert(MfaPage::key_offset(token, dim));
      places.insert(MfaPage::value_offset(dim, token));
    }
  EXPECT_EQ(places.size(), 2u * kTokens * kDim);
  EXPECT_EQ(*places.begin(), 0);
  EXPECT_EQ(*places.rbegin(), MfaPage::kScalesAt - 1);
}

class MfaPrepareTest : public GpuTest {};

std::vector<float> normals(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

std::vector<float> exported(const DeviceMemory& page, MfaCache cache = MfaCache::kFp8) {
  const DeviceMemory canonical(2 * kTokens * kDim * sizeof(float));
  run(MfaExportPage{.cache = cache, .canonical = canonical.as<float>(), .page = page.as<std::uint8_t>()}, nullptr);
  synchronise();
  return canonical.download<float>();
}

TEST_F(MfaPrepareTest, KeysAreRotatedAndBothAreQuantisedByToken) {
  constexpr int kRows = 40;
  const std::vector<float> k = normals(kRows * kDim, 1), v = normals(kRows * kDim, 2);
  std::vector<std::int32_t> positions, slots;
  std::vector<float> inv_freq;
  for (int row = 0; row < kRows; ++row) positions.push_back(row * 997), slots.push_back(kTokens + (row * 7) % kTokens);
  for (int m = 0; m < kDim / 2; ++m) inv_freq.push_back(std::pow(500000.f, -2.f * static_cast<float>(m) / kDim));
  DeviceMemory pages(2 * MfaPage::kBytes), page(MfaPage::kBytes);
  pages.fill(0);
  const DeviceMemory k_memory = DeviceMemory::of(k), v_memory = DeviceMemory::of(v),
                     positions_memory = DeviceMemory::of(positions), slots_memory = DeviceMemory::of(slots),
                     inv_freq_memory = DeviceMemory::of(inv_freq);
  MfaPrepare op{};
  op.pages = pages.as<std::uint8_t>();
  op.page_stride = MfaPage::kBytes;
  op.k = k_memory.as<float>();
  op.v = v_memory.as<float>();
  op.k_stride = op.v_stride = kDim;
  op.positions = positions_memory.as<std::int32_t>();
  op.slots = slots_memory.as<std::int32_t>();
  op.inv_freq = inv_freq_memory.as<float>();
  op.rows = kRows;
  run(op, nullptr);
  synchronise();
  const std::vector<std::byte> bytes = pages.download<std::byte>();
  page.upload(std::span(bytes).subspan(MfaPage::kBytes));
  const std::vector<float> got = exported(page);
  for (int row = 0; row < kRows; ++row) {
    const int token = slots[row] % kTokens;
    double largest_k = 0, largest_v = 0;
    std::vector<double> key(kDim);
    for (int m = 0; m < kDim / 2; ++m) {
      const double angle = static_cast<double>(static_cast<float>(positions[row]) * inv_freq[m]);
      const double a = k[row * kDim + m], b = k[row * kDim + m + kDim / 2];
      key[m] = a * std::cos(angle) - b * std::sin(angle);
      key[m + kDim / 2] = b * std::cos(angle) + a * std::sin(angle);
    }
    for (int d = 0; d < kDim; ++d) {
      largest_k = std::max(largest_k, std::abs(key[d]));
      largest_v = std::max(largest_v, std::abs(static_cast<double>(v[row * kDim + d])));
    }
    for (int d = 0; d < kDim; ++d) {  // E4M3: half of 1/8, and below the normal numbers half of 2^-9
      EXPECT_NEAR(got[token * kDim + d], key[d], std::abs(key[d]) / 15.9 + largest_k / 448 / 900) << row << " " << d;
      const float value = v[row * kDim + d];
      EXPECT_NEAR(got[(kTokens + token) * kDim + d], value, std::abs(value) / 15.9 + largest_v / 448 / 900);
    }
  }
  // And nothing was written where no slot is.
  for (int d = 0; d < kDim; ++d) EXPECT_EQ(got[(kRows * 7 % kTokens) * kDim + d], 0.f);
}

TEST_F(MfaPrepareTest, APageSurvivesItsCanonicalForm) {
  std::vector<float> canonical = normals(2 * kTokens * kDim, 5);
  for (int token = 0; token < 2 * kTokens; ++token)
    for (int d = 0; d < kDim; ++d) canonical[token * kDim + d] *= std::exp2(static_cast<float>(token % 40 - 20));
  for (int d = 0; d < kDim; ++d) canonical[3 * kDim + d] = 0;
  const DeviceMemory memory = DeviceMemory::of(canonical);
  for (const MfaCache cache : {MfaCache::kFp8, MfaCache::kBf16}) {
    DeviceMemory first(static_cast<std::size_t>(mfa_page_bytes(cache))), second(first.bytes());
    run(MfaImportPage{.cache = cache, .page = first.as<std::uint8_t>(), .canonical = memory.as<float>()}, nullptr);
    const std::vector<float> out = exported(first, cache);
    const DeviceMemory again = DeviceMemory::of(out);
    run(MfaImportPage{.cache = cache, .page = second.as<std::uint8_t>(), .canonical = again.as<float>()}, nullptr);
    synchronise();
    EXPECT_EQ(first.download<std::uint8_t>(), second.download<std::uint8_t>());
    if (cache == MfaCache::kFp8) continue;
    for (std::size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], bf16_to_f32(f32_to_bf16(canonical[i]))) << i;
  }
}

TEST_F(MfaPrepareTest, QueriesAreKeptToTwoTerms) {
  constexpr int kRows = 3, kHeads = MfaPage::kHeads;
  const std::vector<float> q = normals(kRows * kHeads * kDim, 9);
  std::vector<std::uint16_t> bits;
  for (const float x : q) bits.push_back(f32_to_bf16(x));
  const DeviceMemory q_memory = DeviceMemory::of(bits), kv(kDim * 2), pages(MfaPage::kBytes),
                     zeros = DeviceMemory::of(std::vector<std::int32_t>(kRows, 0)),
                     inv_freq = DeviceMemory::of(std::vector<float>(kDim / 2, 1.f));
  DeviceMemory tiles(kRows * 2 * MfaPage::kQueryTileBytes), scales(kRows * kHeads * sizeof(float));
  MfaPrepare op{};
  op.q_tiles = tiles.as<std::uint8_t>();
  op.q_scales = scales.as<float>();
  op.pages = pages.as<std::uint8_t>();
  op.q = q_memory.as<std::uint16_t>();
  op.k = op.v = kv.as<std::uint16_t>();
  op.q_stride = kHeads * kDim;
  op.bf16 = true;
  op.positions = op.slots = zeros.as<std::int32_t>();
  op.inv_freq = inv_freq.as<float>();
  op.rows = kRows;
  run(op, nullptr);
  synchronise();
  const std::vector<std::uint8_t> codes = tiles.download<std::uint8_t>();
  const std::vector<float> scale = scales.download<float>();
  const auto value = [](std::uint8_t code) {
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    const double size = exponent == 0 ? mantissa / 512. : std::ldexp(1 + mantissa / 8., exponent - 7);
    return code & 128 ? -size : size;
  };
  for (std::size_t i = 0; i < q.size(); ++i) {
    const std::size_t row = i / (kHeads * kDim);
    const int head = static_cast<int>(i / kDim % kHeads), dim = static_cast<int>(i % kDim);
    const std::uint8_t* tile = &codes[row * 2 * MfaPage::kQueryTileBytes];
    const int at = MfaPage::key_offset(head, dim);
    const double x = bf16_to_f32(bits[i]);
    const double got = (value(tile[at]) + value(tile[MfaPage::kQueryTileBytes + at])) * scale[row * kHeads + head];
    ASSERT_NEAR(got, x, std::abs(x) / 250 + scale[row * kHeads + head] / 900) << i;
  }
}

}  // namespace
}  // namespace tandem::cuda
