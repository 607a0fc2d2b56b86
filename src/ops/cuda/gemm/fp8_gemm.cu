// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/check.h"
#include "ops/cuda/device.h"
#include "ops/cuda/gemm/fp8_gemm.cuh"
#include "ops/cuda/gemm/fp8_gemm_dealt.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::cuda {

namespace {

int multiprocessors() {
  static const int count = look_at_device().multiprocessors;
  return count;
}

using fp8_gemm::Output;

template <int kColumnBlocks, int kSplit, Output kOutput>
void launch(const Fp8Gemm& op, const Fp8GemmPlan& plan, Stream stream) {
  using V = fp8_gemm::Variant<kColumnBlocks, kSplit, kOutput>;
  if constexpr (kSplit == 1 && kOutput != Output::kNorm)
    if (plan.dealt) {
      TANDEM_CHECK(op.experts <= kDealtExpertsMax, "more experts than tiles can be dealt of");
      return launch_dependent(fp8_gemm::multiply_dealt_kernel<V>, dim3(kGemmMultiprocessors), fp8_gemm::kThreads,
                              sizeof(fp8_gemm::Shared<V>), stream, op, 2);
    }
  const int row_tiles = op.row_tiles ? 1 : (op.rows_max + 127) / 128;
  const dim3 grid(static_cast<unsigned>(op.n / plan.tile_columns * row_tiles * kSplit),
                  static_cast<unsigned>(op.row_tiles ? op.row_tile_count : op.experts));
  // Where blocks do not fill the GPU, two tiles that are cut in two come together: four blocks at a time spread more
  // evenly over its parts, each of which has only so much of the bandwidth.
  constexpr unsigned kSpreadBlocksMax = 112;  // so many fit in fours
  const bool spread = kSplit == 2 && grid.x % 4 == 0 && grid.x * grid.y <= kSpreadBlocksMax;
  launch_dependent(fp8_gemm::multiply_kernel<V>, grid, fp8_gemm::kThreads, sizeof(fp8_gemm::Shared<V>), stream, op,
                   spread ? 4 : kSplit);
}

template <Output kOutput>
void launch_rows(const Fp8Gemm& op, const Fp8GemmPlan& plan, Stream stream) {
  if (plan.tile_columns == 256) return launch<2, 1, kOutput>(op, plan, stream);
  if (plan.split == 4) return launch<1, 4, kOutput>(op, plan, stream);
  if (plan.split == 2) return launch<1, 2, kOutput>(op, plan, stream);
  launch<1, 1, kOutput>(op, plan, stream);
}

}  // namespace

void run(const Fp8Gemm& op, Stream stream) {
  if (op.experts == 0 || op.rows_max == 0) return;
  TANDEM_CHECK(
      !op.has_norm() || (op.hidden == nullptr && op.before_norm.columns % 128 == 0 && op.before_norm.columns <= op.n),
      "a product before or after a norm");
  const Fp8GemmPlan plan = plan_of(op, multiprocessors());
  if (op.hidden != nullptr) return launch<2, 1, Output::kSwiGlu>(op, plan, stream);
  if (op.has_norm()) return launch_rows<Output::kNorm>(op, plan, stream);
  launch_rows<Output::kRows>(op, plan, stream);
}

}  // namespace tandem::cuda
