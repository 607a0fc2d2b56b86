// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "synthetic/weight_values.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/rng.h"
#include "base/scalar.h"

namespace tandem {

namespace {

constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15ull;  // of the counter, as in SplitMix64

// Where a standard normal variable stays below with this probability.
double quantile(double probability) {
  double low = -8, high = 8;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (std::erfc(-middle / std::sqrt(2.0)) / 2 < probability ? low : high) = middle;
  }
  return low;
}

// Of mean 0 and deviation 1, exactly.
const std::array<float, 256>& quantiles() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> q;
    double squares = 0;
    for (std::size_t i = 0; i < q.size(); ++i) {
      q[i] = static_cast<float>(quantile((static_cast<double>(i) + 0.5) / 256));
      squares += static_cast<double>(q[i]) * q[i] / 256;
    }
    for (float& value : q) value /= static_cast<float>(std::sqrt(squares));
    return q;
  }();
  return values;
}

std::uint32_t stored(DType dtype, float value) {
  switch (dtype) {
    case DType::kF32:
      return std::bit_cast<std::uint32_t>(value);
    case DType::kBF16:
      return f32_to_bf16(value);
    case DType::kF8E4M3:
      return f32_to_f8_e4m3(value);
    default:
      TANDEM_CHECK(false, "a type that synthetic weights do not come in");
  }
}

template <class Element>
void fill_elements(std::uint64_t seed, const std::array<std::uint32_t, 256>& entries, std::uint64_t first,
                   std::span<std::byte> out) {
  std::array<Element, 256> table;
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<Element>(entries[i]);
  std::uint64_t counter = seed + first / 8 * kStep;
  const std::size_t count = out.size() / sizeof(Element);
  for (std::size_t i = 0; i < count; i += 8) {
    std::uint64_t bits = mix64(counter += kStep);
    Element eight[8];
    for (int j = 0; j < 8; ++j, bits >>= 8) eight[j] = table[bits & 255];
    std::memcpy(out.data() + i * sizeof(Element), eight, std::min<std::size_t>(8, count - i) * sizeof(Element));
  }
}

}  // namespace

WeightValues::WeightValues(std::uint64_t seed, std::string_view name, DType dtype, const NormalSpread& spread)
    : seed_(mix64(seed + kStep)), dtype_(dtype) {
  for (const char c : name) seed_ = mix64(seed_ + kStep + static_cast<unsigned char>(c));
  for (std::size_t i = 0; i < table_.size(); ++i)
    table_[i] = stored(dtype, spread.mean + spread.deviation * quantiles()[i]);
}

void WeightValues::fill(std::uint64_t offset, std::span<std::byte> out) const {
  const std::size_t size = traits(dtype_).block_bytes;
  TANDEM_CHECK(offset % (8 * size) == 0 && out.size() % size == 0, "a piece that begins inside eight elements");
  if (size == 4) fill_elements<std::uint32_t>(seed_, table_, offset / size, out);
  if (size == 2) fill_elements<std::uint16_t>(seed_, table_, offset / size, out);
  if (size == 1) fill_elements<std::uint8_t>(seed_, table_, offset / size, out);
}

}  // namespace tandem
