// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/check.h"
#include "base/format.h"
#include "ops/cuda/gemm/fp8_gemm.h"

namespace tandem::cuda {

// Gate and up need both halves of 256 columns in one block. Else such tiles re-read the activations least often, but
// halves fill the last round of multiprocessors better; where they are few, k is split over blocks of a cluster.
Fp8GemmPlan plan_fp8_gemm(std::int32_t experts, std::int32_t rows_max, std::int32_t n, std::int32_t k, bool swiglu) {
  TANDEM_CHECK(n > 0 && n % (swiglu ? 256 : 128) == 0 && k > 0 && k % 128 == 0,
               format("FP8 product with n = {} and k = {}", n, k));
  constexpr int kMultiprocessors = kGemmMultiprocessors,
                kEnough = 80;  // so many blocks draw the memory's whole bandwidth
  const auto rounds = [](int blocks) { return (blocks + kMultiprocessors - 1) / kMultiprocessors; };
  const int row_tiles = experts * ((rows_max + 127) / 128);
  const int narrow_blocks = row_tiles * (n / 128), wide_blocks = row_tiles * (n / 256);
  const bool wide =
      swiglu || (n % 256 == 0 && wide_blocks >= kEnough && 2 * rounds(wide_blocks) <= rounds(narrow_blocks));
  Fp8GemmPlan plan;
  plan.tile_columns = wide ? 256 : 128;
  plan.blocks = wide ? wide_blocks : narrow_blocks;
  while (!wide && plan.split < 4 && plan.blocks < kEnough && k / 128 >= 8 * plan.split) {
    plan.split *= 2;
    plan.blocks *= 2;
  }
  return plan;
}

namespace {

// Tiles are dealt where there are more than multiprocessors, or may be. What is left over after whole rounds is cut
// along k, if it is little and k long, so wide tiles, which read less, need not fill their last round.
void deal_tiles(const Fp8Gemm& op, Fp8GemmPlan& plan) {
  if (op.scratch == nullptr || op.has_norm() || plan.split != 1 || op.row_tiles != nullptr ||
      op.experts > kDealtExpertsMax)
    return;
  const std::int32_t rows = op.rows_usual > 0 ? op.rows_usual : op.rows_max;
  const std::int32_t row_tiles = op.experts * ((rows + 127) / 128);
  plan.dealt = op.rows_usual > 0 || row_tiles * (op.n / plan.tile_columns) > kGemmMultiprocessors;
  if (!plan.dealt) return;
  if (op.n % 256 == 0 && row_tiles * (op.n / 256) >= kGemmMultiprocessors) plan.tile_columns = 256;
  plan.blocks = kGemmMultiprocessors;
}

}  // namespace

Fp8GemmPlan plan_of(const Fp8Gemm& op, int multiprocessors) {
  const bool swiglu = op.hidden != nullptr;
  if (!op.fixed_order) {
    Fp8GemmPlan plan = plan_fp8_gemm(op.experts, op.rows_max, op.n, op.k, swiglu);
    if (multiprocessors >= kGemmMultiprocessors) deal_tiles(op, plan);
    return plan;
  }
  // As for one tile of rows, however many there are.
  Fp8GemmPlan plan = plan_fp8_gemm(1, 1, op.n, op.k, swiglu);
  plan.blocks *= op.row_tiles ? op.row_tile_count : op.experts * ((op.rows_max + 127) / 128);
  return plan;
}

std::string Fp8GemmPlan::to_string() const {
  return format("{} blocks of 128 x {}, k in {}{}", blocks, tile_columns, split, dealt ? ", dealt in rounds" : "");
}

}  // namespace tandem::cuda
