// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Conversions between f32 and the formats of 16 and 8 bits of weights, activations and KV. Plain code; vector versions
// live in ops/cpu.
#pragma once

#include <bit>
#include <cstdint>

namespace tandem {

inline float bf16_to_f32(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// Round to nearest even; NaN stays NaN.
inline std::uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float f16_to_f32(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) {  // zero and subnormals: mantissa * 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  const std::uint32_t rebiased = exponent == 31 ? 0xffu : exponent + 112;
  return std::bit_cast<float>(sign | (rebiased << 23) | (mantissa << 13));
}

// E4M3 without infinities: 1 sign, 4 exponent (bias 7) and 3 mantissa bits; all ones is NaN, 448 the largest.
inline constexpr float kF8E4M3Max = 448;

inline float f8_e4m3_to_f32(std::uint8_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x80u) << 24, magnitude = bits & 0x7fu;
  if (magnitude == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
  // The exponent is moved by a product, which makes subnormals right too.
  const float value = std::bit_cast<float>(magnitude << 20) * 0x1p120f;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
}

// Round to nearest even; beyond the largest is the largest; NaN stays NaN.
inline std::uint8_t f32_to_f8_e4m3(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint8_t>(bits >> 24 & 0x80u);
  const float magnitude = std::bit_cast<float>(bits & 0x7fffffffu);
  if (magnitude != magnitude) return sign | 0x7fu;
  if (magnitude >= kF8E4M3Max) return sign | 0x7eu;
  if (magnitude < 0x1p-6f) {  // subnormal: a multiple of 2^-9; the sum with 2^14 rounds at that bit
    const float rounded = magnitude + 0x1p14f;
    return static_cast<std::uint8_t>(sign | (std::bit_cast<std::uint32_t>(rounded) & 0xfu));
  }
  const std::uint32_t rest = (bits & 0x7fffffffu) - (120u << 23);  // exponent of bias 7
  return static_cast<std::uint8_t>(sign | ((rest + 0x7ffffu + (rest >> 20 & 1u)) >> 20));
}

}  // namespace tandem
