// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A tile's sums in the registers of the math warpgroups of the FP8 product kernels.
#pragma once

#include "ops/cuda/gemm/fp8_gemm_block.cuh"
#include "ops/cuda/ptx/async_copy.cuh"
#include "ops/cuda/ptx/wgmma.cuh"
#include "ops/cuda/quad.cuh"

namespace tandem::cuda::fp8_gemm {

// By tile of k, of the first columns of the block.
__device__ inline const float* weight_scales_of(const Fp8Gemm& op, const Work& w) {
  return w.weight_scales + static_cast<std::size_t>(w.column_block) * (op.k / Fp8Tile::kDepth);
}

// Scaled, and added in f32.
template <int kCount>
__device__ inline void promote(const float (&t)[kCount], float factor0, float factor1, float* out) {
#pragma unroll
  for (int j = 0; j < kCount; ++j) out[j] = fmaf(t[j], (j >> 1) & 1 ? factor1 : factor0, out[j]);
}

// The 64 rows of a group and 128 of k, as the tensor core takes its first operand from registers: 4 of them for 32 of
// k.
__device__ inline void load_rows(const std::uint8_t* tile, std::uint32_t (&a)[4][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane % 16;
  const std::uint32_t base = ptx::shared_address(tile);
#pragma unroll
  for (int step = 0; step < 4; ++step)
    ptx::load_matrices(a[step], base + static_cast<std::uint32_t>(Fp8Tile::offset(row, 32 * step + lane / 16 * 16)));
}

// 64 rows x 256 columns, 64 columns at a time; accumulators as in ptx/wgmma.cuh. Rows come from registers, or so few
// columns would read them from shared memory too often.
template <class V>
struct Wide {
  Shared<V>& s;
  int group;
  float (&out)[128];

  template <int kChunk>
  __device__ void begin(int stage, const std::uint32_t (&rows)[4][4], float (&t)[32]) const {
    const ptx::Descriptor weight =
        ptx::descriptor(ptx::shared_address(s.weight[stage][kChunk / 2]), 1024, ptx::Swizzle::k128) +
        kChunk % 2 * 64 * Fp8Tile::kDepth;
    ptx::pin(t);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < 4; ++step) ptx::wgmma_e4m3_n64(t, rows[step], weight + 32 * step, step > 0);
    ptx::wgmma_commit();
  }
  template <int kChunk>
  __device__ void add(float (&t)[32], float factor0, float factor1) const {
    ptx::pin(t);
    promote(t, factor0, factor1, out + 32 * kChunk);
  }
};

template <class V>
__device__ inline void multiply_wide(Shared<V>& s, const Fp8Gemm& op, const Work& w, int step, int group,
                                     float (&out)[128]) {
  const int row = row_of_quad();
  const float* scales = weight_scales_of(op, w) + w.k_begin;
  const int second = (w.second_column_block - w.column_block) * (op.k / Fp8Tile::kDepth), count = w.k_end - w.k_begin;
  const Wide<V> wide{s, group, out};
  std::uint32_t even[4][4], odd[4][4];  // rows, in turns: products that are on their way still read theirs
  float t0[32], t1[32];
  // Tile i of k, whose first two products are on their way; begins those of the next, if there is one.
  const auto multiply = [&](int i, const std::uint32_t(&rows)[4][4], std::uint32_t(&next_rows)[4][4], bool is_last) {
    const int stage = (step + i) % V::kStages, next = (step + i + 1) % V::kStages;
    const float x0 = s.x_scales[stage][group][row], x1 = s.x_scales[stage][group][row + 8];
    const float scale0 = scales[i], scale1 = scales[second + i];
    ptx::wgmma_wait<1>();
    wide.template add<0>(t0, x0 * scale0, x1 * scale0);
    wide.template begin<2>(stage, rows, t0);
    ptx::wgmma_wait<1>();
    wide.template add<1>(t1, x0 * scale0, x1 * scale0);
    wide.template begin<3>(stage, rows, t1);
    if (!is_last) {
      ptx::wait(&s.full[next], (step + i + 1) / V::kStages & 1);
      load_rows(s.x[next][group], next_rows);
    }
    ptx::wgmma_wait<1>();
    wide.template add<2>(t0, x0 * scale1, x1 * scale1);
    if (!is_last) {
      wide.template begin<0>(next, next_rows, t0);
      ptx::wgmma_wait<1>();
    } else {
      ptx::wgmma_wait<0>();
    }
    ptx::arrive_as_warp(&s.free[stage]);
    wide.template add<3>(t1, x0 * scale1, x1 * scale1);
    if (!is_last) wide.template begin<1>(next, next_rows, t1);
  };
  ptx::wait(&s.full[step % V::kStages], step / V::kStages & 1);
  load_rows(s.x[step % V::kStages][group], even);
  wide.template begin<0>(step % V::kStages, even, t0);
  wide.template begin<1>(step % V::kStages, even, t1);
  int i = 0;
  for (; i + 2 < count; i += 2) {
    multiply(i, even, odd, false);
    multiply(i + 1, odd, even, false);
  }
  if (i + 1 < count) {
    multiply(i, even, odd, false);
    multiply(i + 1, odd, even, true);
  } else {
    multiply(i, even, odd, true);
  }
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
    const ptx::Descriptor x = ptx::descriptor(ptx::shared_address(s.x[stage][group]), 1024, ptx::Swizzle::k128);
    const ptx::Descriptor weight = ptx::descriptor(ptx::shared_address(s.weight[stage][0]), 1024, ptx::Swizzle::k128);
    ptx::pin(t);
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k) ptx::wgmma_e4m3_n128(t, x + 32 * k, weight + 32 * k, k > 0);
    ptx::wgmma_commit();
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
  // Products under way across the end of a loop would be serialised by the compiler.
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
