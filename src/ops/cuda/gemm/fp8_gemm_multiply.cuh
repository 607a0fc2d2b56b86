// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A tile's sums in the registers of the math warpgroups of the FP8 product kernels.
#pragma once

#include "ops/cuda/gemm/fp8_gemm_block.cuh"
#include "ops/cuda/ptx/wgmma.cuh"
#include "ops/cuda/quad.cuh"

namespace tandem::cuda::fp8_gemm {

// By tile of k, of the first columns of the block.
__device__ inline const float* weight_scales_of(const Fp8Gemm& op, const Work& w) {
  return w.weight.scales + static_cast<std::size_t>(w.column_block) * (op.k / Fp8Tile::kDepth);
}

// Scaled, and added in f32.
template <int kCount>
__device__ inline void promote(const float (&t)[kCount], float factor0, float factor1, float* out) {
#pragma unroll
  for (int j = 0; j < kCount; ++j) out[j] = fmaf(t[j], (j >> 1) & 1 ? factor1 : factor0, out[j]);
}

// A stage's products of a group's 64 rows and 128 columns; accumulators as in ptx/wgmma.cuh.
template <class V>
__device__ inline void begin_products(Shared<V>& s, int stage, int group, int column_block, float (&t)[64]) {
  const ptx::Descriptor x = ptx::descriptor(ptx::shared_address(s.x[stage][group]), 1024, ptx::Swizzle::k128);
  const ptx::Descriptor weight =
      ptx::descriptor(ptx::shared_address(s.weight[stage][column_block]), 1024, ptx::Swizzle::k128);
  ptx::pin(t);
  ptx::wgmma_fence();
#pragma unroll
  for (int k = 0; k < 4; ++k) ptx::wgmma_e4m3_n128(t, x + 32 * k, weight + 32 * k, k > 0);
  ptx::wgmma_commit();
}

// 64 rows x 256 columns, at least one tile of k, 128 columns at a time: while a group adds up its products, the tensor
// cores have the other group's.
template <class V>
__device__ inline void multiply_wide(Shared<V>& s, const Fp8Gemm& op, const Work& w, int step, int group,
                                     float (&out)[128]) {
  const int row = row_of_quad();
  const float* scales = weight_scales_of(op, w) + w.k_begin;
  const int second = (w.second_column_block - w.column_block) * (op.k / Fp8Tile::kDepth), count = w.k_end - w.k_begin;
  float t[64];
  const auto stage_of_step = [&](int i) {  // once it is full
    ptx::wait(&s.full[i % V::kStages], i / V::kStages & 1);
    return i % V::kStages;
  };
  // Tile i of k, whose first products are on their way; begins those of the next, if there is one.
  const auto multiply = [&](int i, bool is_last) {
    const int stage = (step + i) % V::kStages;
    const float x0 = s.x_scales[stage][group][row], x1 = s.x_scales[stage][group][row + 8];
    const float scale0 = scales[i], scale1 = scales[second + i];
    ptx::wgmma_wait<0>();
    ptx::pin(t);
    promote(t, x0 * scale0, x1 * scale0, out);
    begin_products(s, stage, group, 1, t);
    const int next = is_last ? 0 : stage_of_step(step + i + 1);
    ptx::wgmma_wait<0>();
    ptx::arrive_as_warp(&s.free[stage]);
    ptx::pin(t);
    promote(t, x0 * scale1, x1 * scale1, out + 64);
    if (!is_last) begin_products(s, next, group, 0, t);
  };
  begin_products(s, stage_of_step(step), group, 0, t);
  for (int i = 0; i + 1 < count; ++i) multiply(i, false);
  multiply(count - 1, true);
}

// 64 rows x 128 columns: while the products of one stage are added, those of the next are on their way.
template <class V>
struct Narrow {
  Shared<V>& s;
  const float* weight_scales;
  int step;  // of the ring, where this begins
  int group, row;
  float (&out)[64];

  __device__ void begin(int i, float (&t)[64]) const {
    const int stage = (step + i) % V::kStages;
    ptx::wait(&s.full[stage], (step + i) / V::kStages & 1);
    begin_products(s, stage, group, 0, t);
  }
  // kInFlight: products begun after those of stage i.
  template <int kInFlight>
  __device__ void end(int i, float (&t)[64]) const {
    const int stage = (step + i) % V::kStages;
    const float scale = weight_scales[i];
    const float x_scale[2] = {s.x_scales[stage][group][row], s.x_scales[stage][group][row + 8]};
    ptx::wgmma_wait<kInFlight>();
    ptx::pin(t);
    ptx::arrive_as_warp(&s.free[stage]);
    promote(t, x_scale[0] * scale, x_scale[1] * scale, out);
  }
};

template <class V>
__device__ inline void multiply_narrow(Shared<V>& s, const Fp8Gemm& op, const Work& w, int step, int group,
                                       float (&out)[64]) {
  const Narrow<V> n{s, weight_scales_of(op, w) + w.k_begin, step, group, row_of_quad(), out};
  const int count = w.k_end - w.k_begin;
  float even[64], odd[64];
  int i = 0;
  // Of two accumulators, products under way across the end of a loop would be serialised by the compiler.
  for (; i + 4 <= count; i += 4) {
    n.begin(i, even);
    n.begin(i + 1, odd);
    n.template end<1>(i, even);
    n.begin(i + 2, even);
    n.template end<1>(i + 1, odd);
    n.begin(i + 3, odd);
    n.template end<1>(i + 2, even);
    n.template end<0>(i + 3, odd);
  }
  if (i + 2 <= count) {
    n.begin(i, even);
    n.begin(i + 1, odd);
    n.template end<1>(i, even);
    n.template end<0>(i + 1, odd);
    i += 2;
  }
  if (i < count) {
    n.begin(i, even);
    n.template end<0>(i, even);
  }
}

// A group without rows only lets the stages go.
template <class V>
__device__ inline void pass_stages(Shared<V>& s, const Work& w, int step) {
  for (int i = step; i < step + w.k_end - w.k_begin; ++i) {
    ptx::wait(&s.full[i % V::kStages], i / V::kStages & 1);
    ptx::arrive_as_warp(&s.free[i % V::kStages]);
  }
}

// A tile's sums over [w.k_begin, w.k_end), from ring position step on. A group without rows has zeros.
template <class V>
__device__ inline void multiply_tile(Shared<V>& s, const Fp8Gemm& op, const Work& w, const RowRange& rows, int step,
                                     int group, float (&out)[64 * V::kColumnBlocks]) {
#pragma unroll
  for (int i = 0; i < 64 * V::kColumnBlocks; ++i) out[i] = 0;
  if (group >= rows.blocks()) {
    pass_stages(s, w, step);
  } else if constexpr (V::kColumnBlocks == 2) {
    multiply_wide<V>(s, op, w, step, group, out);
  } else {
    multiply_narrow<V>(s, op, w, step, group, out);
  }
}

}  // namespace tandem::cuda::fp8_gemm
