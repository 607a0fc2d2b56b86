// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Element types of tensors, weights and files. Quantised types store blocks of block_elements values along the last
// axis.
//
//   Q8_0  block of 32: f16 scale d, 32 x int8 q                         w = d*q               34 bytes
//   Q4_0  block of 32: f16 scale d, 16 bytes of nibbles                 w = d*(q - 8)         18 bytes
//   Q4_1  block of 32: f16 scale d, f16 minimum m, 16 bytes of nibbles  w = d*q + m           20 bytes
//   F8    E4M3; as a weight with a factor for each block of 128 x 128 beside it (ops/weight.h)
// In both 4-bit types byte j holds value j in its low nibble and value j + 16 in its high one.
//
// The K types come in blocks of 256 with f16 factors d (and m) and a small scale s (and minimum t) for every 32 or 16.
//   Q4_K  8 x 32: d, m, 12 bytes of six-bit s and t, nibbles             w = d*s*q - m*t      144 bytes
//   Q5_K  8 x 32: the same, and a fifth bit of each value                w = d*s*q - m*t      176 bytes
//   Q6_K  16 x 16: nibbles, two more bits of each value, int8 s, d       w = d*s*(q - 32)     210 bytes
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tandem {

enum class DType : std::uint8_t { kF32, kBF16, kF16, kI32, kU8, kF8E4M3, kQ8_0, kQ4_0, kQ4_1, kQ4_K, kQ5_K, kQ6_K };

struct DTypeTraits {
  std::string_view name;
  std::size_t block_elements;  // values in one block, 1 for plain types
  std::size_t block_bytes;     // bytes of one block
};

constexpr DTypeTraits traits(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return {"f32", 1, 4};
    case DType::kBF16:
      return {"bf16", 1, 2};
    case DType::kF16:
      return {"f16", 1, 2};
    case DType::kI32:
      return {"i32", 1, 4};
    case DType::kU8:
      return {"u8", 1, 1};
    case DType::kF8E4M3:
      return {"f8_e4m3", 1, 1};
    case DType::kQ8_0:
      return {"q8_0", 32, 34};
    case DType::kQ4_0:
      return {"q4_0", 32, 18};
    case DType::kQ4_1:
      return {"q4_1", 32, 20};
    case DType::kQ4_K:
      return {"q4_k", 256, 144};
    case DType::kQ5_K:
      return {"q5_k", 256, 176};
    case DType::kQ6_K:
      return {"q6_k", 256, 210};
  }
  return {"unknown", 1, 1};
}

constexpr std::string_view name(DType dtype) {
  return traits(dtype).name;
}
constexpr bool is_quantised(DType dtype) {
  return traits(dtype).block_elements > 1;
}

// Bytes of a row of elements values; elements must be a multiple of the block.
constexpr std::size_t row_bytes(DType dtype, std::size_t elements) {
  return elements / traits(dtype).block_elements * traits(dtype).block_bytes;
}

// Widens elements values (a multiple of the block) at source to f32. Plain code: loaders, reference and tests use it;
// the kernels have their own. Every type but i32 and u8; f8_e4m3 without the factors of a weight.
void dequantise(DType dtype, const std::byte* source, std::size_t elements, float* out);

// The six-bit scale s and minimum t of 32 values out of the 12 bytes of a Q4_K or Q5_K block.
struct ScaleAndMinimum {
  std::uint8_t scale, minimum;
};
ScaleAndMinimum k_scale(const std::byte* packed, int group);

}  // namespace tandem
