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

template <class V>
void launch(const Fp8Gemm& op, const Fp8GemmPlan& plan, Stream stream) {
  if constexpr (V::kSplit == 1)
    if (plan.dealt) {
      TANDEM_CHECK(op.experts <= kDealtExpertsMax, "more experts than tiles can be dealt of");
      return launch_dependent(fp8_gemm::multiply_dealt_kernel<V>, dim3(kGemmMultiprocessors), fp8_gemm::kThreads,
                              sizeof(fp8_gemm::Shared<V>), stream, op, 2);
    }
  const int row_tiles = op.row_tiles ? 1 : (op.rows_max + 127) / 128;
  const dim3 grid(static_cast<unsigned>(op.n / plan.tile_columns * row_tiles * V::kSplit),
                  static_cast<unsigned>(op.row_tiles ? op.row_tile_count : op.experts));
  launch_dependent(fp8_gemm::multiply_kernel<V>, grid, fp8_gemm::kThreads, sizeof(fp8_gemm::Shared<V>), stream, op,
                   V::kSplit);
}

}  // namespace

void run(const Fp8Gemm& op, Stream stream) {
  if (op.experts == 0 || op.rows_max == 0) return;
  using fp8_gemm::Variant;
  const bool swiglu = op.hidden != nullptr;
  const Fp8GemmPlan plan = plan_of(op, multiprocessors());
  if (swiglu) return launch<Variant<2, 1, true>>(op, plan, stream);
  if (plan.tile_columns == 256) return launch<Variant<2, 1, false>>(op, plan, stream);
  if (plan.split == 4) return launch<Variant<1, 4, false>>(op, plan, stream);
  if (plan.split == 2) return launch<Variant<1, 2, false>>(op, plan, stream);
  launch<Variant<1, 1, false>>(op, plan, stream);
}

}  // namespace tandem::cuda
