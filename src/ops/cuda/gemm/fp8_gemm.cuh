// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The FP8 product kernel.
//
// Shape: a block owns 128 rows x 128 or 256 columns; two math warpgroups take 64 rows each, one or two threads feed a
// ring of 128-deep stages with plain copies of whole tiles. A stage's products are summed inside the tensor core (about
// 14 bits) for 128 of k only, then scaled and added in f32. K runs in order, so bits do not depend on the number of
// rows.
//
// While a group adds up products, its next ones are on their way, from one stage to the next as well: the tensor cores
// always have some to do. With 256 columns that takes nearly all registers, so what else a block knows is looked up
// again when its sums are done.
//
// With kSplit > 1 that many blocks of a cluster take parts of k and add up in rank order through each other's shared
// memory, each a part of the columns, or before a norm of the rows. Factors of a norm before are found meanwhile by two
// warps that have nothing else to do. Where tiles are dealt (fp8_gemm_dealt.cuh), blocks that have the same columns
// share what they load of them.
//
// Weights do not come from the previous kernel, so their first stages are fetched while it still runs.
// Bound by memory up to about 200 rows an expert. Measured: docs/performance/gpu-kernels.md.
#pragma once

#include "ops/cuda/gemm/fp8_gemm.h"
#include "ops/cuda/gemm/fp8_store.cuh"
#include "ops/cuda/gemm/fp8_tile.h"
#include "ops/cuda/gemm/ring.cuh"
#include "ops/cuda/ptx/async_copy.cuh"
#include "ops/cuda/ptx/block.cuh"
#include "ops/cuda/ptx/bulk_copy.cuh"
#include "ops/cuda/ptx/cluster.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/ptx/e4m3.cuh"
#include "ops/cuda/ptx/mbarrier.cuh"
#include "ops/cuda/ptx/wgmma.cuh"
#include "ops/cuda/quad.cuh"

namespace tandem::cuda::fp8_gemm {

inline constexpr int kThreads = 384;
inline constexpr int kRowBlocks = 2;  // of 64 rows, a math warpgroup each

// What leaves a block: rows, also before a norm or after one, or the rows of an expert's second product.
enum class Output : std::uint8_t { kRows, kNorm, kSwiGlu };

template <int kColumnBlocks_, int kSplit_, Output kOutput>
struct Variant {
  static constexpr int kColumnBlocks = kColumnBlocks_;  // of 128
  static constexpr int kSplit = kSplit_;                // blocks of a tile, neighbours in a cluster
  static constexpr bool kSwiGlu = kOutput == Output::kSwiGlu, kNorm = kOutput == Output::kNorm;
  static constexpr int kStages = kColumnBlocks == 2 ? 4 : 6;
  // Threads that feed multiply_kernel: a second one loads rows, as copies that one thread starts come one after the
  // other. Dealt tiles have one.
  static constexpr int kFeeders = kColumnBlocks == 2 ? 1 : 2;
  static constexpr int kFeederRegisters = kColumnBlocks == 2 ? 24 : 40, kMathRegisters = kColumnBlocks == 2 ? 240 : 232;
  static_assert(!kSwiGlu || (kColumnBlocks == 2 && kSplit == 1), "gate and up of the same columns meet in one block");
};

template <class V>
struct alignas(1024) Shared {
  std::uint8_t weight[V::kStages][V::kColumnBlocks][Fp8Tile::kWeightBytes];
  std::uint8_t x[V::kStages][kRowBlocks][Fp8Tile::kBytes];
  float x_scales[V::kStages][kRowBlocks][Fp8Tile::kRows];
  float factors[kRowBlocks * Fp8Tile::kRows];  // of the norm before, by row
  std::uint64_t full[V::kStages], free[V::kStages], has_factors;
};

// What this block computes. Blocks with the same columns and other rows are neighbours: they read a weight tile at
// about the same time, so it comes from memory once.
struct Work {
  const std::uint8_t* weight;
  const float* weight_scales;
  int expert, column_block;  // first, of 128
  int second_column_block;   // of a block that has two
  int row_tile;              // of 128 rows, in the expert
  int rank;                  // among the blocks of the tile
  int k_begin, k_end;        // tiles of 128
};

// Of the columns that a block has, and of w's expert.
template <class V>
__device__ inline void set_columns(const Fp8Gemm& op, int column_tile, Work& w) {
  w.column_block = V::kSwiGlu ? column_tile : column_tile * V::kColumnBlocks;
  w.second_column_block = w.column_block + (V::kSwiGlu ? op.n / (2 * Fp8Tile::kWeightRows) : 1);
}

__device__ inline void set_weight(const Fp8Gemm& op, Work& w) {
  const std::size_t blocks = op.n / Fp8Tile::kWeightRows * static_cast<std::size_t>(op.k / Fp8Tile::kDepth);
  w.weight = op.weights ? op.weights[w.expert].tiles : op.weight + w.expert * blocks * Fp8Tile::kWeightBytes;
  w.weight_scales = op.weights ? op.weights[w.expert].scales : op.weight_scales + w.expert * blocks;
}

template <class V>
__device__ inline Work work_of_block(const Fp8Gemm& op, int block) {
  const int k_tiles = op.k / Fp8Tile::kDepth, row_tiles = op.row_tiles ? 1 : (op.rows_max + 127) / 128;
  const int tile = block / V::kSplit, column_tile = tile / row_tiles;
  Work w;
  w.rank = block % V::kSplit;
  set_columns<V>(op, column_tile, w);
  w.row_tile = tile % row_tiles;
  w.expert = static_cast<int>(blockIdx.y);
  if (op.row_tiles) {
    ptx::wait_for_previous_kernel();
    w.expert = op.row_tiles[blockIdx.y].expert;
    w.row_tile = op.row_tiles[blockIdx.y].row_tile;
  }
  w.k_begin = k_tiles * w.rank / V::kSplit;
  w.k_end = k_tiles * (w.rank + 1) / V::kSplit;
  if (w.expert >= 0) set_weight(op, w);
  return w;
}

__device__ inline const std::uint8_t* weight_tile(const Fp8Gemm& op, const Work& w, int k, int column_block) {
  const std::size_t before = static_cast<std::size_t>(k) * (op.n / Fp8Tile::kWeightRows) + column_block;
  return w.weight + before * Fp8Tile::kWeightBytes;
}

template <class V>
__device__ inline void feed_weight(Shared<V>& s, const Fp8Gemm& op, const Work& w, int k, int stage) {
  // Gate and up of the same columns are apart, other columns of a block are neighbours.
  constexpr int kPieces = V::kSwiGlu ? 2 : 1, kBytes = V::kColumnBlocks * Fp8Tile::kWeightBytes;
  ptx::expect(&s.full[stage], kBytes);
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
    const std::uint8_t* tile = weight_tile(op, w, k, piece == 0 ? w.column_block : w.second_column_block);
    if (op.rows_max <= 128)
      ptx::bulk_load_once(s.weight[stage][piece], tile, kBytes / kPieces, &s.full[stage]);
    else  // the other row tiles read it as well
      ptx::bulk_load(s.weight[stage][piece], tile, kBytes / kPieces, &s.full[stage]);
  }
}

template <class V>
__device__ inline void feed_x(Shared<V>& s, const Fp8Gemm& op, int row, int row_blocks, int k, int stage) {
  constexpr int kScaleBytes = Fp8Tile::kRows * 4;
  ptx::arrive_expecting(&s.full[stage], row_blocks * (Fp8Tile::kBytes + kScaleBytes));
  const std::size_t tile = static_cast<std::size_t>(k) * (op.x_rows / Fp8Tile::kRows) + row / Fp8Tile::kRows;
  ptx::bulk_load(s.x[stage], op.x + tile * Fp8Tile::kBytes, row_blocks * Fp8Tile::kBytes, &s.full[stage]);
  ptx::bulk_load(s.x_scales[stage], op.x_scales + k * op.x_rows + row, row_blocks * kScaleBytes, &s.full[stage]);
}

// Rows of this block, known once the previous kernel has ended.
struct RowRange {
  int first, count;
  __device__ int blocks() const { return (count + Fp8Tile::kRows - 1) / Fp8Tile::kRows; }
};

__device__ inline RowRange rows_of_block(const Fp8Gemm& op, const Work& w) {
  const int before = w.row_tile * 128;
  if (!op.row_begin) return {before, min(op.rows_max - before, 128)};
  return {op.row_begin[w.expert] + before, min(max(op.row_count[w.expert] - before, 0), 128)};
}

// Of a stage that was used before.
template <class V>
__device__ inline void wait_until_free(Shared<V>& s, int step) {
  ptx::wait(&s.free[step % V::kStages], (step / V::kStages - 1) & 1);
}

// The thread that loads weights, and rows if there is no other.
template <class V>
__device__ inline void feed(Shared<V>& s, const Fp8Gemm& op, const Work& w) {
  const int count = w.k_end - w.k_begin, early = min(count, V::kStages);
  for (int i = 0; i < early; ++i) {
    feed_weight<V>(s, op, w, w.k_begin + i, i);
    if (V::kFeeders == 2) ptx::arrive(&s.full[i]);
  }
  ptx::wait_for_previous_kernel();
  const RowRange rows = rows_of_block(op, w);
  if (rows.count == 0) {  // what was fetched early must have arrived before the block may end
    if (V::kFeeders == 1)
      for (int i = 0; i < early; ++i) ptx::arrive(&s.full[i]);
    for (int i = 0; i < early; ++i) ptx::wait(&s.full[i], 0);
    return;
  }
  for (int i = V::kFeeders == 1 ? 0 : early; i < count; ++i) {
    const int stage = i % V::kStages;
    if (i >= V::kStages) {
      wait_until_free(s, i);
      feed_weight<V>(s, op, w, w.k_begin + i, stage);
    }
    if (V::kFeeders == 1)
      feed_x<V>(s, op, rows.first, rows.blocks(), w.k_begin + i, stage);
    else
      ptx::arrive(&s.full[stage]);
  }
}

template <class V>
__device__ inline void feed_rows(Shared<V>& s, const Fp8Gemm& op, const Work& w) {
  const int count = w.k_end - w.k_begin;
  ptx::wait_for_previous_kernel();
  const RowRange rows = rows_of_block(op, w);
  if (rows.count == 0) {
    for (int i = 0; i < min(count, V::kStages); ++i) ptx::arrive(&s.full[i]);
    return;
  }
  for (int i = 0; i < count; ++i) {
    if (i >= V::kStages) wait_until_free(s, i);
    feed_x<V>(s, op, rows.first, rows.blocks(), w.k_begin + i, i % V::kStages);
  }
}

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
  if (V::kNorm && threadIdx.x == 0) ptx::init_barrier(&s.has_factors, 2);
  init_ring(s.full, s.free, {.feeders = V::kFeeders, .readers = 8});  // math warps
  const Work w = work_of_block<V>(op, static_cast<int>(blockIdx.x));
  if (w.expert < 0) return;  // and so do all blocks of the cluster
  const int group = ptx::warpgroup();
  if (group == kRowBlocks) {
    ptx::give_registers<V::kFeederRegisters>();
    if (threadIdx.x == 128 * kRowBlocks) feed<V>(s, op, w);
    if (V::kFeeders == 2 && threadIdx.x == 128 * kRowBlocks + 32) feed_rows<V>(s, op, w);
    if constexpr (V::kNorm)
      if (op.after_norm.squares != nullptr && threadIdx.x >= 128 * kRowBlocks + 64) find_factors<V>(s, op, w);
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
