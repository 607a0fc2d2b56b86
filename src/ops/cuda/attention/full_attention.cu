// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Attention of every row of a picture over all of its rows: 2,708 rows and 16 heads of 112 in Step-3's tower.
//
// First queries, keys and values of each head are laid out in tiles of 64 rows as WGMMA reads them. Queries and keys
// are two f16 terms, 22 bits: an error of a score counts as often as the score is large. A power of two for each tile
// brings them into the range of f16. Values and probabilities are two bf16 terms, 16 bits. Then a block takes two tiles
// of queries of a head, one to each math warpgroup, and walks all tiles of keys and values, which the copy engine
// brings into a ring. Of the four products of two terms by two the smallest, beyond what the terms hold, is left out.
//
// The warpgroups take turns on the tensor cores: one has the values of the tile before and the scores of the next,
// while the other makes exponentials. What a tile gives is summed by the tensor cores, tiles are added in f32
// registers, in order: a row's bits depend on its picture alone.
//
// Bound by the tensor cores: for a tile of queries and a tile of keys 672 cycles of scores and as many of values.
// Measured: docs/performance/gpu-models.md.
#include <cuda_fp16.h>

#include <string>

#include "base/error.h"
#include "ops/cuda/attention/online_softmax.cuh"
#include "ops/cuda/gemm/ring.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/machine.cuh"
#include "ops/cuda/pieces.cuh"
#include "ops/cuda/ptx/block.cuh"
#include "ops/cuda/ptx/bulk_copy.cuh"
#include "ops/cuda/ptx/wgmma.cuh"
#include "ops/cuda/quad.cuh"
#include "ops/cuda/reduce.cuh"

namespace tandem::cuda {

namespace {

constexpr int kTileRows = 64;
constexpr int kGroups = 2;  // math warpgroups
constexpr int kThreads = 128 * (kGroups + 1);
constexpr int kLayoutThreads = 256;

// A tile of a head whose values are kDim wide, zeros beyond those that there are. Of a term:
//   queries, keys   [64 columns and the next 64][64 rows][128 bytes], with 128-byte swizzle: k runs along a row
//   values          [kDim columns][64 rows in 128 bytes], likewise
template <int kDim>
struct Tile {
  static constexpr int kColumnBytes = kTileRows * 128;
  static constexpr int kKeyBytes = (kDim + 63) / 64 * kColumnBytes;
  static constexpr int kValueBytes = kDim * 128;

  __device__ static int key_offset(int row, int chunk) {  // of eight columns
    return chunk / 8 * kColumnBytes + row * 128 + ((chunk % 8 ^ (row & 7)) << 4);
  }
  __device__ static int value_offset(int column, int chunk) {  // of eight rows
    return column * 128 + ((chunk ^ (column & 7)) << 4);
  }
};

// Where the tiles of all heads are: both terms of a tile next to each other, tile after tile, head after head.
struct Tiles {
  std::byte *q, *k, *v;
  float *q_scales, *k_scales;   // of a tile: what its terms are multiplied by
  std::int32_t q_count, count;  // of a head; a block's queries are there even where they are padding
};

struct LayoutOp {
  Tiles tiles;
  Rows<float> q, k, v;
  std::int32_t rows, dim;
};

__device__ inline std::uint32_t packed_f16(float a, float b) {
  const __half2 pair = __floats2half2_rn(a, b);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
// What rounding them left over, rounded in turn.
__device__ inline std::uint32_t rest_f16(std::uint32_t packed, float a, float b) {
  const float2 rounded = __half22float2(*reinterpret_cast<const __half2*>(&packed));
  return packed_f16(a - rounded.x, b - rounded.y);
}

template <bool kF16>
__device__ void store_terms(std::byte* to, std::int64_t term_bytes, const float (&x)[8]) {
  std::uint32_t high[4], low[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    high[i] = kF16 ? packed_f16(x[2 * i], x[2 * i + 1]) : packed_bf16(x[2 * i], x[2 * i + 1]);
    low[i] = kF16 ? rest_f16(high[i], x[2 * i], x[2 * i + 1]) : rest_bf16(high[i], x[2 * i], x[2 * i + 1]);
  }
  *reinterpret_cast<uint4*>(to) = make_uint4(high[0], high[1], high[2], high[3]);
  *reinterpret_cast<uint4*>(to + term_bytes) = make_uint4(low[0], low[1], low[2], low[3]);
}

// The power of two that brings the largest of the block's values below 2^15. shared has a place for each warp.
__device__ inline float power_for_f16(float largest, float* shared) {
  largest = warp_max(largest);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = largest;
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < kLayoutThreads / 32; ++warp) largest = fmaxf(largest, shared[warp]);
  return largest > 0 ? exp2f(static_cast<float>(max(-100, min(100, 14 - ilogbf(largest))))) : 1.0f;
}

// Queries or keys.
template <int kDim>
__device__ void lay_out_keys(std::byte* tile, float* scale, const Rows<float>& x, std::int32_t first_row,
                             std::int32_t first_column, const LayoutOp& op) {
  constexpr int kChunks = Tile<kDim>::kKeyBytes / Tile<kDim>::kColumnBytes * 8;
  constexpr int kOfThread = kTileRows * kChunks / kLayoutThreads;
  __shared__ float of_warps[kLayoutThreads / 32];
  float values[kOfThread][8], largest = 0;  // of those that are finite
#pragma unroll
  for (int i = 0; i < kOfThread; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * kLayoutThreads;
    const std::int32_t row = first_row + at / kChunks, column = at % kChunks * 8;
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      float& value = values[i][c];
      value = row < op.rows && column + c < op.dim ? x[row][first_column + column + c] : 0.0f;
      if (isfinite(value)) largest = fmaxf(largest, fabsf(value));
    }
  }
  const float power = power_for_f16(largest, of_warps);
  if (threadIdx.x == 0) *scale = 1.0f / power;
#pragma unroll
  for (int i = 0; i < kOfThread; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * kLayoutThreads;
#pragma unroll
    for (float& value : values[i]) value *= power;
    store_terms<true>(tile + Tile<kDim>::key_offset(at / kChunks, at % kChunks), Tile<kDim>::kKeyBytes, values[i]);
  }
}

template <int kDim>
__device__ void lay_out_values(std::byte* tile, std::int32_t first_row, std::int32_t first_column, const LayoutOp& op) {
  for (auto i = static_cast<int>(threadIdx.x); i < kDim * (kTileRows / 8); i += kLayoutThreads) {
    const int column = i % kDim, chunk = i / kDim;
    float values[8] = {};
    if (column < op.dim) {
#pragma unroll
      for (int r = 0; r < 8; ++r)
        if (const std::int32_t row = first_row + 8 * chunk + r; row < op.rows)
          values[r] = op.v[row][first_column + column];
    }
    store_terms<false>(tile + Tile<kDim>::value_offset(column, chunk), Tile<kDim>::kValueBytes, values);
  }
}

// Grid: tile, head, and which of queries, keys and values.
template <int kDim>
__global__ void __launch_bounds__(kLayoutThreads) lay_out(const __grid_constant__ LayoutOp op) {
  const auto tile = static_cast<std::int32_t>(blockIdx.x), head = static_cast<std::int32_t>(blockIdx.y);
  const Tiles& tiles = op.tiles;
  const std::int32_t row = tile * kTileRows, column = head * op.dim;
  constexpr std::int64_t kKeys = 2 * Tile<kDim>::kKeyBytes, kValues = 2 * Tile<kDim>::kValueBytes;
  const std::int64_t query = std::int64_t{head} * tiles.q_count + tile, key = std::int64_t{head} * tiles.count + tile;
  if (blockIdx.z == 0)
    lay_out_keys<kDim>(tiles.q + query * kKeys, tiles.q_scales + query, op.q, row, column, op);
  else if (tile >= tiles.count)
    return;
  else if (blockIdx.z == 1)
    lay_out_keys<kDim>(tiles.k + key * kKeys, tiles.k_scales + key, op.k, row, column, op);
  else
    lay_out_values<kDim>(tiles.v + key * kValues, row, column, op);
}

struct AttendOp {
  Tiles tiles;
  Rows<float> out;
  std::int32_t rows, dim;
  float scale;  // of scores, for powers of two
};

// Halves of a tile come through the ring: its keys, then its values.
template <int kDim>
struct alignas(1024) Shared {
  static constexpr int kHalves = 5;
  static constexpr int kKeys = 2 * Tile<kDim>::kKeyBytes, kValues = 2 * Tile<kDim>::kValueBytes;
  std::uint8_t half[kHalves][kKeys > kValues ? kKeys : kValues];
  std::uint8_t q[kGroups][kKeys];
  std::uint64_t full[kHalves], free[kHalves], q_full;
};

template <int kHalves>
struct Place {
  int stage = 0, use = 0;  // the same stage was used so often before
  __device__ void step() {
    if (++stage == kHalves) stage = 0, ++use;
  }
};

// One thread.
template <int kDim>
__device__ void feed(Shared<kDim>& s, const AttendOp& op, std::int32_t head) {
  using S = Shared<kDim>;
  ptx::arrive_expecting(&s.q_full, kGroups * S::kKeys);
  const std::int64_t first = std::int64_t{head} * op.tiles.q_count + std::int64_t{blockIdx.x} * kGroups;
  ptx::bulk_load(s.q, op.tiles.q + first * S::kKeys, kGroups * S::kKeys, &s.q_full);
  Place<S::kHalves> place;
  const auto load = [&](const std::byte* from, std::uint32_t bytes) {
    if (place.use > 0) ptx::wait(&s.free[place.stage], (place.use - 1) & 1);
    ptx::arrive_expecting(&s.full[place.stage], bytes);
    ptx::bulk_load(s.half[place.stage], from, bytes, &s.full[place.stage]);
    place.step();
  };
  const std::int64_t tiles = std::int64_t{head} * op.tiles.count;
  for (std::int32_t tile = 0; tile < op.tiles.count; ++tile) {
    load(op.tiles.k + (tiles + tile) * S::kKeys, S::kKeys);
    load(op.tiles.v + (tiles + tile) * S::kValues, S::kValues);
  }
}

__device__ inline void multiply(float (&c)[32], const std::uint32_t* a, ptx::Descriptor b, bool accumulate) {
  ptx::wgmma_bf16_n64(c, a, b, accumulate);
}
__device__ inline void multiply(float (&c)[56], const std::uint32_t* a, ptx::Descriptor b, bool accumulate) {
  ptx::wgmma_bf16_n112(c, a, b, accumulate);
}
__device__ inline void multiply(float (&c)[64], const std::uint32_t* a, ptx::Descriptor b, bool accumulate) {
  ptx::wgmma_bf16_n128(c, a, b, accumulate);
}

// The products of terms, the smaller ones first: which term of a and of b has its turn.
constexpr int kTermPairs = 3;
__device__ constexpr int term_of_a(int pair) {
  return pair == 0 ? 1 : 0;
}
__device__ constexpr int term_of_b(int pair) {
  return pair == 1 ? 1 : 0;
}

template <int kDim>
class QueryTile {
 public:
  __device__ QueryTile(Shared<kDim>& s, const AttendOp& op, int group)
      : s_(s), op_(op), group_(group), q_(ptx::descriptor(ptx::shared_address(s.q[group]), 1024, ptx::Swizzle::k128)) {
#pragma unroll
    for (float& value : out_) value = 0;
  }

  __device__ void attend() {
    if (group_ == 1) give_turn();
    ptx::wait(&s_.q_full, 0);
    const std::int32_t head = static_cast<std::int32_t>(blockIdx.y), count = op_.tiles.count;
    const float scale = op_.scale * op_.tiles.q_scales[head * op_.tiles.q_count + my_tile()];
    const float* k_scales = op_.tiles.k_scales + head * count;
    float scores[32], values[kValues];
    begin_turn();
    Half keys = next_half();
    issue_scores(scores, keys.at);
    give_turn();
    finish_scores(scores, keys);
    soften(scores, scale * k_scales[0], op_.rows);
    for (std::int32_t tile = 1; tile < count; ++tile) {
      const float scale_of_tile = scale * k_scales[tile];
      begin_turn();
      const Half before = next_half();
      keys = next_half();
      issue_values(values, before.at);
      issue_scores(scores, keys.at);
      finish_values<1>(values, before);
      give_turn();
      add(values);
      finish_scores(scores, keys);
      soften(scores, scale_of_tile, op_.rows - tile * kTileRows);
    }
    begin_turn();
    const Half before = next_half();
    issue_values(values, before.at);
    finish_values<0>(values, before);
    if (group_ == 0) give_turn();
    add(values);
  }

  __device__ void store() {
    const int thread = static_cast<int>(threadIdx.x) % 128, quad = thread & 3;
    const std::int32_t row = my_tile() * kTileRows + thread / 32 * 16 + (thread % 32 >> 2);
    const std::int32_t first = static_cast<std::int32_t>(blockIdx.y) * op_.dim;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum_[r] = quad_sum(sum_[r]);
      if (row + 8 * r >= op_.rows) continue;
      float* to = op_.out[row + 8 * r] + first;
      const float scale = 1.0f / sum_[r];
#pragma unroll
      for (int i = 0; i < kValues; ++i) {
        const int column = 8 * (i / 4) + 2 * quad + i % 2;
        if ((i / 2) % 2 == r && column < op_.dim) to[column] = out_[i] * scale;
      }
    }
  }

 private:
  static constexpr int kValues = kDim / 2;  // of a thread: two rows, a quarter of the columns
  static constexpr int kTurn = 2;           // barrier of the first group; of the second the next

  __device__ std::int32_t my_tile() const { return static_cast<std::int32_t>(blockIdx.x) * kGroups + group_; }
  __device__ void begin_turn() const { ptx::sync_threads(kTurn + group_, 128 * kGroups); }
  __device__ void give_turn() const { ptx::arrive_threads(kTurn + 1 - group_, 128 * kGroups); }

  struct Half {
    ptx::Descriptor at;
    int stage;
  };
  // What comes next through the ring, when it is there.
  __device__ Half next_half() {
    ptx::wait(&s_.full[place_.stage], place_.use & 1);
    const Half half{ptx::descriptor(ptx::shared_address(s_.half[place_.stage]), 1024, ptx::Swizzle::k128),
                    place_.stage};
    place_.step();
    return half;
  }

  __device__ void issue_scores(float (&scores)[32], ptx::Descriptor k) const {
    constexpr int kTerm = Tile<kDim>::kKeyBytes;
    ptx::pin(scores);
    ptx::wgmma_fence();
#pragma unroll
    for (int pair = 0; pair < kTermPairs; ++pair)
#pragma unroll
      for (int i = 0; i < kDim / 16; ++i) {
        const int at = i / 4 * Tile<kDim>::kColumnBytes + i % 4 * 32;
        ptx::wgmma_f16_n64(scores, q_ + (term_of_a(pair) * kTerm + at), k + (term_of_b(pair) * kTerm + at),
                           pair > 0 || i > 0);
      }
    ptx::wgmma_commit();
  }

  __device__ void issue_values(float (&values)[kValues], ptx::Descriptor v) const {
    constexpr int kTerm = Tile<kDim>::kValueBytes;
    ptx::pin(values);
    ptx::wgmma_fence();
#pragma unroll
    for (int pair = 0; pair < kTermPairs; ++pair)
#pragma unroll
      for (int i = 0; i < kTileRows / 16; ++i)
        multiply(values, p_[term_of_a(pair)] + 4 * i, v + (term_of_b(pair) * kTerm + 32 * i), pair > 0 || i > 0);
    ptx::wgmma_commit();
  }

  __device__ void finish_scores(float (&scores)[32], const Half& keys) {
    ptx::wgmma_wait<0>();
    ptx::pin(scores);
    ptx::arrive_as_warp(&s_.free[keys.stage]);
  }
  template <int kInFlight>
  __device__ void finish_values(float (&values)[kValues], const Half& from) {
    ptx::wgmma_wait<kInFlight>();
    ptx::pin(values);
    ptx::arrive_as_warp(&s_.free[from.stage]);
  }

  // Scores times scale to probabilities relative to the largest so far. live: tokens of the tile.
  __device__ void soften(float (&scores)[32], float scale, std::int32_t live) {
    mask_scores(scores, 0, live);
    float maximum[2] = {maximum_[0], maximum_[1]}, sum[2] = {0, 0};
    raise_maximum(scores, scale, maximum);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      keep_[r] = exp2_fast(maximum_[r] - maximum[r]);
      maximum_[r] = maximum[r];
    }
    exponentials(scores, scale, maximum, p_, sum);
#pragma unroll
    for (int r = 0; r < 2; ++r) sum_[r] = fmaf(sum_[r], keep_[r], sum[r]);
  }

  __device__ void add(const float (&values)[kValues]) {
#pragma unroll
    for (int i = 0; i < kValues; ++i) out_[i] = fmaf(out_[i], keep_[(i >> 1) & 1], values[i]);
  }

  Shared<kDim>& s_;
  const AttendOp& op_;
  const int group_;
  const ptx::Descriptor q_;
  Place<Shared<kDim>::kHalves> place_;
  float out_[kValues];
  float maximum_[2] = {kMinusInfinity, kMinusInfinity}, sum_[2] = {0, 0}, keep_[2] = {1, 1};
  std::uint32_t p_[2][16];
};

// Grid: pair of tiles of queries, head.
template <int kDim>
__global__ void __launch_bounds__(kThreads, 1) attend(const __grid_constant__ AttendOp op) {
  auto& s = ptx::dynamic_shared<Shared<kDim>>();
  if (threadIdx.x == 0) ptx::init_barrier(&s.q_full, 1);
  init_ring(s.full, s.free, {.feeders = 1, .readers = 4 * kGroups});
  const int group = ptx::warpgroup();
  if (group == kGroups) {
    ptx::give_registers<40>();
    if (threadIdx.x == 128 * kGroups) feed(s, op, static_cast<std::int32_t>(blockIdx.y));
  } else {
    ptx::take_registers<232>();
    QueryTile<kDim> tile(s, op, group);
    tile.attend();
    tile.store();
  }
}

template <int kDim>
void launch(Machine& machine, const FullAttention& op) {
  const std::int64_t rows = op.q.rows(), heads = op.heads;
  const std::int64_t count = divide_up<std::int64_t>(rows, kTileRows), blocks = divide_up<std::int64_t>(count, kGroups);
  const std::int64_t q_bytes = heads * blocks * kGroups * Shared<kDim>::kKeys;
  const std::int64_t k_bytes = heads * count * Shared<kDim>::kKeys, v_bytes = heads * count * Shared<kDim>::kValues;
  Pieces pieces(machine.workspace(Pieces::bytes<std::byte>(q_bytes) + Pieces::bytes<std::byte>(k_bytes) +
                                  Pieces::bytes<std::byte>(v_bytes) + Pieces::bytes<float>(heads * blocks * kGroups) +
                                  Pieces::bytes<float>(heads * count)));
  LayoutOp layout{.tiles = {},
                  .q = rows_of(op.q),
                  .k = rows_of(op.k),
                  .v = rows_of(op.v),
                  .rows = static_cast<std::int32_t>(rows),
                  .dim = static_cast<std::int32_t>(op.q.shape[1] / heads)};
  layout.tiles.q = pieces.take<std::byte>(q_bytes);
  layout.tiles.k = pieces.take<std::byte>(k_bytes);
  layout.tiles.v = pieces.take<std::byte>(v_bytes);
  layout.tiles.q_scales = pieces.take<float>(heads * blocks * kGroups);
  layout.tiles.k_scales = pieces.take<float>(heads * count);
  layout.tiles.q_count = static_cast<std::int32_t>(blocks * kGroups);
  layout.tiles.count = static_cast<std::int32_t>(count);
  lay_out<kDim><<<dim3(static_cast<unsigned>(blocks * kGroups), static_cast<unsigned>(heads), 3), kLayoutThreads, 0,
                  machine.stream>>>(layout);
  need(cudaGetLastError(), "starting the layout of full_attention");

  constexpr std::size_t kBytes = sizeof(Shared<kDim>);
  need(cudaFuncSetAttribute(attend<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes)),
       "asking for shared memory");
  const AttendOp attention{.tiles = layout.tiles,
                           .out = rows_of(op.out),
                           .rows = layout.rows,
                           .dim = layout.dim,
                           .scale = op.scale * kLog2E};
  attend<kDim><<<dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(heads)), kThreads, kBytes, machine.stream>>>(
      attention);
  need(cudaGetLastError(), "starting full_attention");
}

}  // namespace

void run(Machine& machine, const FullAttention& op) {
  if (op.q.rows() == 0) return;
  const std::int64_t dim = op.q.shape[1] / op.heads;
  if (dim > 128)
    throw Error(ErrorCode::kUnsupported,
                "full_attention over heads of " + std::to_string(dim) + ", the cuda backend has those of up to 128");
  if (dim <= 64) return launch<64>(machine, op);
  if (dim <= 112) return launch<112>(machine, op);
  launch<128>(machine, op);
}

}  // namespace tandem::cuda
