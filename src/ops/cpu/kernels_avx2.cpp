// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The kernels for AVX2 with FMA and F16C: vectors of 8.
#include "ops/cpu/kernels-inl.h"

#if HWY_TARGET != HWY_AVX2
#error "the flags of this file do not select AVX2"
#endif

namespace tandem::cpu {
const Kernels& kernels_avx2() {
  return HWY_NAMESPACE::kTable;
}
}  // namespace tandem::cpu
