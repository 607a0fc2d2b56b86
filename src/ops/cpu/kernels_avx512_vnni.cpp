// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The kernels for AVX-512 with VNNI: those of AVX-512, but for int8 products, which have instructions of their own.
#define HWY_COMPILE_ONLY_STATIC
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "ops/cpu/kernels.h"
// In this order: each uses what the ones before it define. Only what is inlined may be used of the first four: the
// file for AVX-512 has the same names.
// clang-format off
#include "ops/cpu/vector-inl.h"
#include "ops/cpu/panel-inl.h"
#include "ops/cpu/sums-inl.h"
#include "ops/cpu/int8_panels-inl.h"
#include "ops/cpu/int8-inl.h"
// clang-format on

#if HWY_TARGET != HWY_AVX3 || !defined(__AVX512VNNI__)
#error "the flags of this file do not select AVX-512 with VNNI"
#endif

namespace tandem::cpu {
const Kernels& kernels_avx512_vnni() {
  static const Kernels table = [] {
    Kernels kernels = kernels_avx512();
    kernels.round_row = HWY_NAMESPACE::round_row;
    kernels.int8_product = HWY_NAMESPACE::int8_product;
    return kernels;
  }();
  return table;
}
}  // namespace tandem::cpu
