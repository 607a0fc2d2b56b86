// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The kernels for what every supported machine has: SSE4 on x86-64 (x86-64-v2), NEON on ARM; vectors of 4.
#define HWY_DISABLE_PCLMUL_AES  // x86-64-v2 has neither, and no kernel uses them
#include "ops/cpu/kernels-inl.h"

#if HWY_ARCH_X86 && HWY_TARGET != HWY_SSE4
#error "the flags of this file do not select SSE4"
#endif

namespace tandem::cpu {
const Kernels& kernels_baseline() {
  return HWY_NAMESPACE::kTable;
}
}  // namespace tandem::cpu
