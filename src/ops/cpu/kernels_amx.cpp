// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The kernels for AMX: those of AVX-512 with VNNI, but for products of types that tiles take.
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
#include "ops/cpu/amx-inl.h"
#include "ops/cpu/int8_amx-inl.h"
#include "ops/cpu/terms_amx-inl.h"
// clang-format on

#if HWY_TARGET != HWY_AVX3 || !defined(__AMX_INT8__) || !defined(__AMX_BF16__)
#error "the flags of this file do not select AMX"
#endif

namespace tandem::cpu {
const Kernels& kernels_amx() {
  static const Kernels table = [] {
    Kernels kernels = kernels_avx512_vnni();
    kernels.int8_product = HWY_NAMESPACE::amx_int8_product;
    kernels.takes_terms = HWY_NAMESPACE::takes_terms;
    kernels.split_row = HWY_NAMESPACE::split_row;
    kernels.term_product = HWY_NAMESPACE::term_product;
    return kernels;
  }();
  return table;
}
}  // namespace tandem::cpu
