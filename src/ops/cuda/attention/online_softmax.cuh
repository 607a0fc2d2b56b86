// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What decode kernels and their merge share of a softmax that goes on page by page, in base 2.
//
// A warpgroup holds scores of 64 rows by 64 tokens, c, as WGMMA leaves them (ptx/wgmma.cuh): a thread has two rows.
#pragma once

#include <cmath>
#include <cstdint>

#include "ops/cuda/bf16.cuh"
#include "ops/cuda/quad.cuh"

namespace tandem::cuda {

inline constexpr float kMinusInfinity = -1e30f;  // finite, so that differences of maxima are never NaN
inline constexpr float kLog2E = 1.4426950408889634f;

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Tokens of a page outside of [begin, end) get no weight.
__device__ inline void mask_scores(float (&c)[32], int begin, int end) {
  if (begin <= 0 && end >= 64) return;
  const int quad = threadIdx.x & 3;
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int token = 8 * (i >> 2) + 2 * quad + (i & 1);
    if (token < begin || token >= end) c[i] = -INFINITY;
  }
}

// The larger of maximum and the scores times scale, of both rows.
__device__ inline void raise_maximum(const float (&c)[32], float scale, float (&maximum)[2]) {
#pragma unroll
  for (int i = 0; i < 32; ++i) maximum[(i >> 1) & 1] = fmaxf(maximum[(i >> 1) & 1], c[i] * scale);
#pragma unroll
  for (int r = 0; r < 2; ++r) maximum[r] = quad_max(maximum[r]);
}

// Scores times scale become probabilities in bf16, the A operand of the next product, in one term or two; sum grows by
// this thread's.
template <int kTerms>
__device__ inline void exponentials(const float (&c)[32], float scale, const float (&maximum)[2],
                                    std::uint32_t (&p)[kTerms][16], float (&sum)[2]) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float a = exp2_fast(fmaf(c[4 * j + 2 * r], scale, -maximum[r]));
      const float b = exp2_fast(fmaf(c[4 * j + 2 * r + 1], scale, -maximum[r]));
      sum[r] += a + b;
      p[0][2 * j + r] = packed_bf16(a, b);
      if constexpr (kTerms == 2) p[1][2 * j + r] = rest_bf16(p[0][2 * j + r], a, b);
    }
  }
}

// Rows row and row + 8 are the two terms of one head: what they give together, in both.
__device__ inline void add_terms(float (&c)[32]) {
#pragma unroll
  for (int i = 0; i < 32; ++i)
    if ((i & 2) == 0) c[i] = c[i + 2] = c[i] + c[i + 2];
}

// exponentials of such scores: row gets the leading terms, row + 8 what they leave over; sum grows by whole ones.
__device__ inline void exponentials_of_terms(const float (&c)[32], float scale, float maximum, std::uint32_t (&p)[16],
                                             float& sum) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const float a = exp2_fast(fmaf(c[4 * j], scale, -maximum));
    const float b = exp2_fast(fmaf(c[4 * j + 1], scale, -maximum));
    sum += a + b;
    p[2 * j] = packed_bf16(a, b);
    p[2 * j + 1] = rest_bf16(p[2 * j], a, b);
  }
}

}  // namespace tandem::cuda
