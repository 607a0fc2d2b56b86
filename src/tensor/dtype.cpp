// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tensor/dtype.h"

#include <cstring>

#include "base/check.h"
#include "base/scalar.h"

namespace tandem {

namespace {

std::uint16_t load_u16(const std::byte* p) {
  std::uint16_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

int low_nibble(std::byte b) {
  return static_cast<int>(b & std::byte{15});
}
int high_nibble(std::byte b) {
  return static_cast<int>(b >> 4);
}

// One block each, at p.

void dequantise_q8_0(const std::byte* p, float* out) {
  const float scale = f16_to_f32(load_u16(p));
  for (int j = 0; j < 32; ++j) out[j] = scale * static_cast<float>(static_cast<std::int8_t>(p[2 + j]));
}

void dequantise_q4_0(const std::byte* p, float* out) {
  const float scale = f16_to_f32(load_u16(p));
  for (int j = 0; j < 16; ++j) {
    out[j] = scale * static_cast<float>(low_nibble(p[2 + j]) - 8);
    out[j + 16] = scale * static_cast<float>(high_nibble(p[2 + j]) - 8);
  }
}

void dequantise_q4_1(const std::byte* p, float* out) {
  const float scale = f16_to_f32(load_u16(p)), minimum = f16_to_f32(load_u16(p + 2));
  for (int j = 0; j < 16; ++j) {
    out[j] = scale * static_cast<float>(low_nibble(p[4 + j])) + minimum;
    out[j + 16] = scale * static_cast<float>(high_nibble(p[4 + j])) + minimum;
  }
}

// Two groups of 32 share 32 bytes: the even one has the low nibbles. fifth: null, or 32 bytes whose bit g belongs to
// group g.
void dequantise_k(const std::byte* p, const std::byte* fifth, const std::byte* nibbles, float* out) {
  const float d = f16_to_f32(load_u16(p)), m = f16_to_f32(load_u16(p + 2));
  for (int g = 0; g < 8; ++g, out += 32) {
    const ScaleAndMinimum small = k_scale(p + 4, g);
    const float scale = d * static_cast<float>(small.scale), minimum = m * static_cast<float>(small.minimum);
    const std::byte* bytes = nibbles + g / 2 * 32;
    for (int j = 0; j < 32; ++j) {
      int q = g % 2 == 0 ? low_nibble(bytes[j]) : high_nibble(bytes[j]);
      if (fifth) q += static_cast<int>(fifth[j] >> g & std::byte{1}) << 4;
      out[j] = scale * static_cast<float>(q) - minimum;
    }
  }
}

// Each half of 128 values: 64 bytes of nibbles, 32 bytes of bit pairs, of which pair r belongs to value 32·r + j.
void dequantise_q6_k(const std::byte* p, float* out) {
  const std::byte* scales = p + 192;
  const float d = f16_to_f32(load_u16(p + 208));
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, r = i % 128 / 32, j = i % 32;
    const std::byte low = p[half * 64 + r % 2 * 32 + j], high = p[128 + half * 32 + j];
    const int q = (r < 2 ? low_nibble(low) : high_nibble(low)) | static_cast<int>(high >> (2 * r) & std::byte{3}) << 4;
    out[i] = d * static_cast<float>(static_cast<std::int8_t>(scales[i / 16])) * static_cast<float>(q - 32);
  }
}

void dequantise_block(DType dtype, const std::byte* p, float* out) {
  switch (dtype) {
    case DType::kQ8_0:
      return dequantise_q8_0(p, out);
    case DType::kQ4_0:
      return dequantise_q4_0(p, out);
    case DType::kQ4_1:
      return dequantise_q4_1(p, out);
    case DType::kQ4_K:
      return dequantise_k(p, nullptr, p + 16, out);
    case DType::kQ5_K:
      return dequantise_k(p, p + 16, p + 48, out);
    case DType::kQ6_K:
      return dequantise_q6_k(p, out);
    default:
      TANDEM_CHECK(false, "dequantise: type has no f32 form");
  }
}

}  // namespace

ScaleAndMinimum k_scale(const std::byte* packed, int group) {
  const auto byte = [&](int i) { return static_cast<unsigned>(packed[i]); };
  if (group < 4) return {static_cast<std::uint8_t>(byte(group) & 63), static_cast<std::uint8_t>(byte(group + 4) & 63)};
  // The later four: four bits of each in a byte of their own, two more above an earlier one's.
  return {static_cast<std::uint8_t>((byte(group + 4) & 15) | byte(group - 4) >> 6 << 4),
          static_cast<std::uint8_t>(byte(group + 4) >> 4 | byte(group) >> 6 << 4)};
}

void dequantise(DType dtype, const std::byte* source, std::size_t elements, float* out) {
  const DTypeTraits t = traits(dtype);
  TANDEM_CHECK(elements % t.block_elements == 0, "a row ends inside a quantised block");
  if (elements == 0) return;  // a share of a weight without columns: out may be null, which memcpy does not take
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, source, elements * sizeof(float));
      return;
    case DType::kBF16:
      for (std::size_t i = 0; i < elements; ++i) out[i] = bf16_to_f32(load_u16(source + 2 * i));
      return;
    case DType::kF16:
      for (std::size_t i = 0; i < elements; ++i) out[i] = f16_to_f32(load_u16(source + 2 * i));
      return;
    case DType::kF8E4M3:
      for (std::size_t i = 0; i < elements; ++i) out[i] = f8_e4m3_to_f32(static_cast<std::uint8_t>(source[i]));
      return;
    default:
      break;
  }
  for (std::size_t i = 0; i < elements; i += t.block_elements, source += t.block_bytes)
    dequantise_block(dtype, source, out + i);
}

}  // namespace tandem
