// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Rounding to bf16 as everywhere in Tandem (base/scalar.h): to nearest even, and NaN keeps its upper bits, where CUDA's
// own conversion gives every NaN the same.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace tandem::cuda {

__device__ inline __nv_bfloat16 to_bf16(float value) {
  if (isnan(value)) return __ushort_as_bfloat16(static_cast<unsigned short>(__float_as_uint(value) >> 16 | 0x40u));
  return __float2bfloat16_rn(value);
}

// Two values in a register, the first below.
__device__ inline std::uint32_t to_bf16_pair(float low, float high) {
  return __bfloat16_as_ushort(to_bf16(low)) | static_cast<std::uint32_t>(__bfloat16_as_ushort(to_bf16(high))) << 16;
}

// The same in one instruction, for values that are numbers.
__device__ inline std::uint32_t packed_bf16(float a, float b) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

// Of the two.
__device__ inline float low_of_bf16(std::uint32_t pair) {
  return __uint_as_float(pair << 16);
}
__device__ inline float high_of_bf16(std::uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

// What rounding them left over, rounded in turn.
__device__ inline std::uint32_t rest_bf16(std::uint32_t packed, float a, float b) {
  return packed_bf16(a - low_of_bf16(packed), b - high_of_bf16(packed));
}

}  // namespace tandem::cuda
