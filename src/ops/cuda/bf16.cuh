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

}  // namespace tandem::cuda
