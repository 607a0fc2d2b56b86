// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The FP8 product kernel.
//
// Shape: a block owns 128 rows x 128 or 256 columns; two math warpgroups take 64 rows each, one or two warps feed a
// ring of 128-deep stages with plain copies of whole tiles. A stage's products are summed inside the tensor core (about
// 14 bits) for 128 of k only, then scaled and added in f32. K runs in order, so bits do not depend on the number of
// rows.
//
// While a group adds up products, the tensor cores have others to do: its next ones, or, where 256 columns leave no
// registers for those, the other group's. What else a block knows is looked up again when its sums are done, or read
// again from shared memory.
//
// With kSplit > 1 that many blocks of a cluster take parts of k and add up in rank order through each other's shared
// memory, each a part of the columns, or before a norm of the rows. Factors of a norm before are found meanwhile by two
// warps that have nothing else to do. Where tiles are dealt (fp8_gemm_dealt.cuh), blocks that have the same columns
// share what they load of them.
//
// Weights do not come from the previous kernel, so their first stages are fetched while it still runs, unless tiles are
// dealt.
// Bound by memory up to about 200 rows an expert. Measured: docs/performance/gpu-kernels.md.
#pragma once

#include "ops/cuda/gemm/fp8_gemm_multiply.cuh"
#include "ops/cuda/gemm/fp8_store.cuh"
#include "ops/cuda/ptx/block.cuh"
#include "ops/cuda/ptx/cluster.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/ptx/e4m3.cuh"

namespace tandem::cuda::fp8_gemm {

__device__ inline float silu(float x) {
  return __fdividef(x, 1.f + __expf(-x));
}

// silu(gate) · up, quantised by row and 128 columns, into the tile that the next product reads.
template <class V>
__device__ inline void store_hidden(const Fp8Gemm& op, const Work& w, const RowRange& rows, int group,
                                    const float (&out)[128]) {
  float h[2][32];  // of either row, two of each 8 columns
#pragma unroll
  for (int i = 0; i < 64; ++i) h[(i >> 1) & 1][i / 4 * 2 + i % 2] = silu(out[i]) * out[64 + i];
  const Fp8Rows to{op.hidden, op.hidden_scales, op.x_rows};
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int at = group * Fp8Tile::kRows + row_of_quad() + 8 * r;
    to.store_quad(rows.first + at, w.column_block, h[r], at < rows.count);
  }
}

// Columns 8 j … of a thread's two rows, for four j from j on in [0, 16 · kColumnBlocks): x[4 i …] of j + i.
__device__ inline void store_four(const Fp8Gemm& op, const Work& w, const RowRange& rows, int group, int j,
                                  const float* x) {
  const int quad = threadIdx.x & 3, row = group * Fp8Tile::kRows + row_of_quad();
  const bool there[2] = {row < rows.count, row + 8 < rows.count};
  if (op.out_f32) {
    float* at = op.out_f32 + (rows.first + row) * op.out_stride + w.column_block * 128 + 8 * j + 2 * quad;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int r = 0; r < 2; ++r)
        if (there[r])
          *reinterpret_cast<float2*>(at + 8 * r * op.out_stride + 8 * i) =
              make_float2(x[4 * i + 2 * r], x[4 * i + 2 * r + 1]);
    return;
  }
  std::uint16_t* at =
      op.out + static_cast<std::size_t>(rows.first + row) * op.n + w.column_block * 128 + 8 * (j + quad);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const uint4 columns = bf16_of_quad(x, r);
    if (there[r]) *reinterpret_cast<uint4*>(at + static_cast<std::size_t>(8 * r) * op.n) = columns;
  }
}

// Rows before a norm: of x's rows row and row + 8 of the block columns 8 j + 2 quad and the next, for a part of the j.
// Parts of a row are in different warps, which exchange what they have found, if there are several.
template <int kParts>
__device__ inline void store_before_norm(const Fp8Gemm& op, int column_block, const RowRange& rows, int row, int part,
                                         float (&x)[64 / kParts], float4 (*found)[256 / 4 / kParts]) {
  constexpr int kCount = 16 / kParts;  // j
  const Fp8BeforeNorm& to = op.before_norm;
  const int quad = threadIdx.x & 3;
  const float2* gain = reinterpret_cast<const float2*>(to.gain + column_block * 128 + part * (8 * kCount) + 2 * quad);
  float largest[2] = {0, 0}, squares[2] = {0, 0};
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    const float2 g = gain[4 * j];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& value = x[4 * j + i];
      squares[i / 2] = fmaf(value, value, squares[i / 2]);
      value *= i % 2 == 0 ? g.x : g.y;
      largest[i / 2] = fmaxf(largest[i / 2], fabsf(value));
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) largest[r] = quad_max(largest[r]), squares[r] = quad_sum(squares[r]);
  if constexpr (kParts > 1) {
    const int place = static_cast<int>(threadIdx.x) % (256 / kParts) / 4;
    if (quad == 0) found[part][place] = make_float4(largest[0], largest[1], squares[0], squares[1]);
    ptx::sync_threads(1, 256);
    float4 all = found[0][place];
#pragma unroll
    for (int p = 1; p < kParts; ++p) {
      const float4 y = found[p][place];
      all = make_float4(fmaxf(all.x, y.x), fmaxf(all.y, y.y), all.z + y.z, all.w + y.w);
    }
    largest[0] = all.x, largest[1] = all.y, squares[0] = all.z, squares[1] = all.w;
  }
  const Fp8Scale scale[2] = {Fp8Scale(largest[0]), Fp8Scale(largest[1])};
  const Fp8Rows out{to.tiles, to.scales, op.x_rows};
  const bool there[2] = {row < rows.count, row + 8 < rows.count};
#pragma unroll
  for (int j = 0; j < kCount; j += 4) {
    std::uint32_t w[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* y = &x[4 * (j + i)];
      w[i] = ptx::to_e4m3(y[0] * scale[0].inverse, y[1] * scale[0].inverse, y[2] * scale[1].inverse,
                          y[3] * scale[1].inverse);
    }
    transpose_in_quad(w);
    const int column = 8 * (part * kCount + j + quad);
    if (there[0]) *reinterpret_cast<uint2*>(out.at(rows.first + row, column_block, column)) = lower_halves(w);
    if (there[1]) *reinterpret_cast<uint2*>(out.at(rows.first + row + 8, column_block, column)) = upper_halves(w);
  }
  if (part > 0 || quad > 0) return;
#pragma unroll
  for (int r = 0; r < 2; ++r)
    if (there[r]) {
      const std::size_t at = static_cast<std::size_t>(column_block) * op.x_rows + rows.first + row + 8 * r;
      to.scales[at] = scale[r].scale;
      to.squares[at] = squares[r];
    }
}

__device__ inline bool is_before_norm(const Fp8Gemm& op, int column_block) {
  return op.before_norm.gain != nullptr && column_block * 128 < op.before_norm.columns;
}

// The sum of what the blocks of a tile have there, in the order of their ranks; this one's is nearer than the others'.
template <class V>
__device__ inline float4 sum_of_blocks(const float4* at, int rank) {
  const int first = ptx::rank_in_cluster() - rank;
  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
  for (int peer = 0; peer < V::kSplit; ++peer) {
    const float4 y = peer == rank ? *at : ptx::load_from_cluster(at, first + peer);
    sum = make_float4(sum.x + y.x, sum.y + y.y, sum.z + y.z, sum.w + y.w);
  }
  return sum;
}

// Every block of the tile has a sum over its part of k; each adds up and stores its share of the columns, or of the
// rows, where a row's columns have to meet.
template <class V>
__device__ inline void store_sum_of_blocks(Shared<V>& s, const Fp8Gemm& op, const Work& w, const RowRange& rows,
                                           int group, const float (&out)[64]) {
  constexpr int kCount = 16 / V::kSplit, kThreadsOfShare = 256 / V::kSplit;  // float4 of a thread
  static_assert(V::kColumnBlocks == 1 && kCount % 4 == 0 && sizeof(float4) * 16 * 256 <= sizeof(s.weight));
  float4* sums = reinterpret_cast<float4*>(s.weight);
  const int thread = threadIdx.x;  // of both groups
  ptx::sync_threads(1, 256);       // the other group has read the last stages as well
#pragma unroll
  for (int j = 0; j < 16; ++j)
    sums[j * 256 + thread] = make_float4(out[4 * j], out[4 * j + 1], out[4 * j + 2], out[4 * j + 3]);
  ptx::sync_cluster();
  const bool by_rows = V::kNorm && is_before_norm(op, w.column_block);
  const int part = by_rows ? thread / kThreadsOfShare : w.rank;  // of the columns
  const int source = by_rows ? w.rank * kThreadsOfShare + thread % kThreadsOfShare : thread;
  float x[4 * kCount];
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    const float4 sum = sum_of_blocks<V>(&sums[(part * kCount + j) * 256 + source], w.rank);
    x[4 * j] = sum.x, x[4 * j + 1] = sum.y, x[4 * j + 2] = sum.z, x[4 * j + 3] = sum.w;
  }
  ptx::arrive_in_cluster();  // the others' memory is read no more
  if (by_rows) {
    const int row = source / 128 * Fp8Tile::kRows + source % 128 / 32 * 16 + source % 32 / 4;
    return store_before_norm<V::kSplit>(op, w.column_block, rows, row, part, x,
                                        reinterpret_cast<float4(*)[256 / 4 / V::kSplit]>(s.x));
  }
#pragma unroll
  for (int j = 0; j < kCount; j += 4) store_four(op, w, rows, group, part * kCount + j, x + 4 * j);
}

template <class V>
__device__ inline void store_tile(const Fp8Gemm& op, const Work& w, const RowRange& rows, int group,
                                  float (&out)[64 * V::kColumnBlocks]) {
  if (group >= rows.blocks()) return;
  if constexpr (V::kSwiGlu) {
    store_hidden<V>(op, w, rows, group, out);
  } else {
#pragma unroll
    for (int block = 0; block < V::kColumnBlocks; ++block) {
      float(&x)[64] = *reinterpret_cast<float(*)[64]>(&out[64 * block]);
      if (V::kNorm && is_before_norm(op, w.column_block + block)) {
        store_before_norm<1>(op, w.column_block + block, rows, group * Fp8Tile::kRows + row_of_quad(), 0, x, nullptr);
        continue;
      }
#pragma unroll
      for (int j = 0; j < 16; j += 4) store_four(op, w, rows, group, 16 * block + j, x + 4 * j);
    }
  }
}

// By the two last warps of the feeding group, which do not feed.
template <class V>
__device__ inline void find_factors(Shared<V>& s, const Fp8Gemm& op, const Work& w) {
  ptx::wait_for_previous_kernel();
  const RowRange rows = rows_of_block(op, w);
  const int thread = static_cast<int>(threadIdx.x) % 128 - 64;
  for (int row = thread; row < rows.count; row += 64) {
    const float* squares = op.after_norm.squares + rows.first + row;
    float sum = 0;
#pragma unroll 8
    for (int part = 0; part < op.after_norm.parts; ++part) sum += squares[part * op.x_rows];
    s.factors[row] = rsqrtf(sum / static_cast<float>(op.k) + op.after_norm.epsilon);
  }
  ptx::arrive_as_warp(&s.has_factors);
}

template <class V>
__device__ inline void multiply_by_factors(Shared<V>& s, int group, float (&out)[64 * V::kColumnBlocks]) {
  ptx::wait(&s.has_factors, 0);
  const float* factors = s.factors + group * Fp8Tile::kRows + row_of_quad();
  const float factor[2] = {factors[0], factors[8]};
#pragma unroll
  for (int i = 0; i < 64 * V::kColumnBlocks; ++i) out[i] *= factor[(i >> 1) & 1];
}

// x, of which the compiler knows nothing: what is found from it again is not kept in registers beside the sums.
__device__ inline int anew(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

template <class V>
__device__ inline void store_block(Shared<V>& s, const Fp8Gemm& op, int group, float (&out)[64 * V::kColumnBlocks]) {
  const Work w = work_of_block<V>(op, anew(static_cast<int>(blockIdx.x)));
  const RowRange rows = rows_of_block(op, w);
  if (V::kNorm && op.after_norm.squares != nullptr) multiply_by_factors<V>(s, group, out);
  if constexpr (V::kSplit > 1)
    store_sum_of_blocks<V>(s, op, w, rows, group, out);
  else
    store_tile<V>(op, w, rows, group, out);
}

template <class V>
__device__ inline void compute(Shared<V>& s, const Fp8Gemm& op, const Work& w, int group) {
  const RowRange rows = rows_of_block(op, w);
  if (rows.count == 0) {
    if constexpr (V::kSplit > 1) {
      ptx::sync_cluster();
      ptx::arrive_in_cluster();
    }
    return;
  }
  float out[64 * V::kColumnBlocks];
  multiply_tile<V>(s, op, w, rows, 0, group, out);
  store_block<V>(s, op, group, out);
}

template <class V>
__global__ void __launch_bounds__(kThreads, 1) multiply_kernel(const __grid_constant__ Fp8Gemm op) {
  // Blocks of a cluster find each other's sums at the same place: dynamic memory begins alike in all of them.
  Shared<V>& s = ptx::dynamic_shared<Shared<V>>();
  if (V::kNorm && threadIdx.x == 0) ptx::init_barrier_of_warps(&s.has_factors, 2);
  init_ring(s.full, s.free, {.feeders = V::kFeeders, .readers = 8});  // math warps
  const Work w = work_of_block<V>(op, static_cast<int>(blockIdx.x));
  if (w.expert < 0) return;  // and so do all blocks of the cluster
  const int group = ptx::warpgroup();
  if (group == kRowBlocks) {
    ptx::give_registers<V::kFeederRegisters>();
    const int warp = ptx::warp() - 4 * kRowBlocks;
    if (warp == 0) feed<V>(s, op, w);
    if (V::kFeeders == 2 && warp == 1) feed_rows<V>(s, op, w);
    if constexpr (V::kNorm)
      if (op.after_norm.squares != nullptr && warp >= 2) find_factors<V>(s, op, w);
    if constexpr (V::kSplit > 1) {
      __syncwarp();
      ptx::sync_cluster();
      ptx::arrive_in_cluster();
    }
  } else {
    ptx::take_registers<V::kMathRegisters>();
    ptx::wait_for_previous_kernel();
    ptx::let_next_kernel_start();
    compute<V>(s, op, w, group);
  }
  if constexpr (V::kSplit > 1) {
    __syncwarp();
    ptx::wait_for_cluster();  // nobody ends while another reads its shared memory
  }
}

}  // namespace tandem::cuda::fp8_gemm
