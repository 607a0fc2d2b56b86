// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Eight bf16 values, as a thread reads and writes them when rows are added up in f32.
#pragma once

#include <cuda_bf16.h>

namespace tandem::cuda {

struct alignas(16) EightBf16 {
  __nv_bfloat162 pair[4];
};

__device__ inline void add(float (&sum)[8], const EightBf16& x, float weight) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 v = __bfloat1622float2(x.pair[i]);
    sum[2 * i] = fmaf(weight, v.x, sum[2 * i]);
    sum[2 * i + 1] = fmaf(weight, v.y, sum[2 * i + 1]);
  }
}

__device__ inline EightBf16 rounded(const float (&sum)[8]) {
  EightBf16 y;
#pragma unroll
  for (int j = 0; j < 4; ++j) y.pair[j] = __floats2bfloat162_rn(sum[2 * j], sum[2 * j + 1]);
  return y;
}

}  // namespace tandem::cuda
