// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// An f32 as the exact sum of bf16 numbers, for the tensor cores: each takes the leading eight bits of what is left.
#pragma once

#include <cstdint>

namespace tandem::cuda {

// (low, high) = Σ terms, two values to a word. Truncated, so that each term is exact and has the sign of its value.
template <int kTerms>
__device__ void split_pair(float low, float high, std::uint32_t (&terms)[kTerms]) {
#pragma unroll
  for (int i = 0; i < kTerms; ++i) {
    const std::uint32_t a = __float_as_uint(low), b = __float_as_uint(high);
    terms[i] = __byte_perm(a, b, 0x7632);  // the upper halves
    low -= __uint_as_float(a & 0xffff0000u);
    high -= __uint_as_float(b & 0xffff0000u);
  }
}

}  // namespace tandem::cuda
