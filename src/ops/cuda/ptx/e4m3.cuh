// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// FP8 (E4M3, saturating) to and from f32, four values in a word.
#pragma once

#include <cuda_fp8.h>

#include <cstdint>

namespace tandem::ptx {

inline constexpr float kMaxE4m3 = 448.f;

__device__ inline std::uint32_t to_e4m3(float a, float b, float c, float d) {
  const std::uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
  const std::uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(c, d), __NV_SATFINITE, __NV_E4M3);
  return low | (high << 16);
}

// Of the low 16 bits.
__device__ inline float2 from_e4m3(std::uint32_t pair) {
  return __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(pair), __NV_E4M3)));
}

// What rounding (a, b, c, d) to the packed values left over, rounded in turn.
__device__ inline std::uint32_t rest_e4m3(std::uint32_t packed, float a, float b, float c, float d) {
  const float2 low = from_e4m3(packed & 0xffffu), high = from_e4m3(packed >> 16);
  return to_e4m3(a - low.x, b - low.y, c - high.x, d - high.y);
}

}  // namespace tandem::ptx
