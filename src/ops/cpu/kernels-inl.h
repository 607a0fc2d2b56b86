// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// All vector kernels, for the instruction set that the including file is compiled for. A file that includes this
// defines one function returning the table; nothing else in the program sees Highway.
#define HWY_COMPILE_ONLY_STATIC
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "ops/cpu/kernels.h"
// In this order: each uses what the ones before it define.
// clang-format off
#include "ops/cpu/vector-inl.h"
#include "ops/cpu/panel-inl.h"
#include "ops/cpu/sums-inl.h"
#include "ops/cpu/product-inl.h"
#include "ops/cpu/int8_panels-inl.h"
#include "ops/cpu/int8-inl.h"
#include "ops/cpu/attention-inl.h"
#include "ops/cpu/rows-inl.h"
// clang-format on

namespace tandem::cpu::HWY_NAMESPACE {

constexpr Kernels kTable = {product, round_row, int8_product, attention, rms_norm,
                            add,     swiglu,    exponential,  read,      multiply_add};

}  // namespace tandem::cpu::HWY_NAMESPACE
