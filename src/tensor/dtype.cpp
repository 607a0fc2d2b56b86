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

// Writes the 16 low nibbles, then the 16 high ones, as scale * q + offset.
void dequantise_nibbles(const std::byte* nibbles, float scale, float offset, float* out) {
  for (int j = 0; j < 16; ++j) {
    const auto byte = static_cast<unsigned>(nibbles[j]);
    out[j] = scale * static_cast<float>(byte & 15u) + offset;
    out[j + 16] = scale * static_cast<float>(byte >> 4) + offset;
  }
}

}  // namespace

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
    default:
      break;
  }
  for (std::size_t i = 0; i < elements; i += t.block_elements, source += t.block_bytes) {
    const float scale = f16_to_f32(load_u16(source));
    if (dtype == DType::kQ8_0) {
      for (int j = 0; j < 32; ++j) out[i + j] = scale * static_cast<float>(static_cast<std::int8_t>(source[2 + j]));
    } else if (dtype == DType::kQ4_0) {
      for (int j = 0; j < 16; ++j) {
        const auto byte = static_cast<int>(source[2 + j]);
        out[i + j] = scale * static_cast<float>((byte & 15) - 8);
        out[i + j + 16] = scale * static_cast<float>((byte >> 4) - 8);
      }
    } else if (dtype == DType::kQ4_1) {
      dequantise_nibbles(source + 4, scale, f16_to_f32(load_u16(source + 2)), out + i);
    } else {
      TANDEM_CHECK(false, "dequantise: type has no f32 form");
    }
  }
}

}  // namespace tandem
