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

// Eight values, term by term.
template <int kTerms>
__device__ void split(const float (&v)[8], std::uint32_t (&terms)[kTerms][4]) {
#pragma unroll
  for (int pair = 0; pair < 4; ++pair) {
    std::uint32_t of_pair[kTerms];
    split_pair(v[2 * pair], v[2 * pair + 1], of_pair);
#pragma unroll
    for (int i = 0; i < kTerms; ++i) terms[i][pair] = of_pair[i];
  }
}

}  // namespace tandem::cuda
