// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// mma.sync: one warp multiplies two small matrices held in registers.
#pragma once

#include <cstdint>

namespace tandem::ptx {

// d[16 × 8] += a[16 × 16] · b[16 × 8], bf16 with f32 sums. Lane 4·g + t holds, two values to a register (the lower half
// is the first of two adjacent k):
//   a0 row g, a1 row g + 8 at k = 2t;  a2, a3 the same rows at k = 2t + 8;  b0, b1 column g at k = 2t and 2t + 8
//   d0, d1 row g at columns 2t and 2t + 1;  d2, d3 row g + 8
// Which k is which does not matter as long as a and b agree.
__device__ inline void mma_m16n8k16(float (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                    std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

}  // namespace tandem::ptx
