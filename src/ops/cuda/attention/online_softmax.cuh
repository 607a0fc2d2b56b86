// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What decode kernels and their merge share of a softmax that goes on page by page, in base 2.
#pragma once

namespace tandem::cuda {

inline constexpr float kMinusInfinity = -1e30f;  // finite, so that differences of maxima are never NaN
inline constexpr float kLog2E = 1.4426950408889634f;

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace tandem::cuda
