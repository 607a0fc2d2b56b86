// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The kernels for AVX-512 (F, BW, CD, DQ, VL): vectors of 16.
#include "ops/cpu/kernels-inl.h"

#if HWY_TARGET != HWY_AVX3
#error "the flags of this file do not select AVX-512"
#endif

namespace tandem::cpu {
const Kernels& kernels_avx512() {
  return HWY_NAMESPACE::kTable;
}
}  // namespace tandem::cpu
