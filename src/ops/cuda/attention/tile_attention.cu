// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A block has a tile of rows of one sequence and the heads that share a key head: queries, which walk the pages
// together. Pages are copied ahead into one of two places in shared memory. Many queries are shared out, 16 to a warp;
// if there are no more than 16, warps have 16 tokens of their scores each and then a quarter of the columns.
//
// A query's sums are the same either way and whoever shares its tile: pages in order within a part of 512 tokens, parts
// merged in order, and a page that it does not see changes nothing. (Where it sees a value that is not finite, all of
// its values may be NaN, or that column's alone.)
//
// Products on the tensor cores: keys and values are bf16, queries and probabilities two bf16 terms each (16 bits).
// Bound by the tensor cores where a tile is full of rows; by memory where rows are alone.
#include "ops/cuda/attention/online_softmax.cuh"
#include "ops/cuda/attention/tile_attention.cuh"
#include "ops/cuda/ptx/async_copy.cuh"
#include "ops/cuda/ptx/block.cuh"
#include "ops/cuda/ptx/mma.cuh"
#include "ops/cuda/quad.cuh"
#include "ops/cuda/reduce.cuh"

namespace tandem::cuda {

namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kQueriesOfWarp = 16;
constexpr int kTerms = 2;  // of a query and of a probability

struct TileOp {
  Attention a;
  Pages<__nv_bfloat16> pages;
  const RowTile* tiles;  // null: a row each
  std::int32_t heads, chunks;
};

// Rows of kDim values, 16 bytes to a chunk; chunks are turned by the row, so that eight rows lie in all banks.
template <int kDim>
struct Layout {
  static constexpr int kChunks = kDim / 8;
  static constexpr int kRowBytes = 2 * kDim;
  __device__ static std::uint32_t offset(int row, int chunk) {
    return static_cast<std::uint32_t>(row * kRowBytes + ((chunk ^ (row & 7)) << 4));
  }
};

// What warps that have the same queries tell each other about a page: 16 tokens each.
struct Exchange {
  float top[kWarps][kQueriesOfWarp], sum[kWarps][kQueriesOfWarp];
  uint4 p[kWarps][kTerms][32];  // probabilities as a lane holds them
};

template <int kDim, bool kTogether>
struct TileShared {
  static constexpr int kPageBytes = kBlockTokens * Layout<kDim>::kRowBytes;
  std::uint8_t k[2][kPageBytes], v[2][kPageBytes];
  std::uint8_t q[kTogether ? 1 : kWarps][kTerms][kQueriesOfWarp * Layout<kDim>::kRowBytes];
  Exchange exchange[kTogether ? 1 : 0];
  bool broken[kBlockTokens];              // values of a page that are not finite
  std::int32_t begin, end;                // what any row of the tile sees
  std::int32_t begin_of_all, end_of_all;  // what all do
};

// v as two bf16 terms, two values to a register.
__device__ inline void cut(float low, float high, std::uint32_t (&terms)[kTerms]) {
  terms[0] = packed_bf16(low, high);
  terms[1] = rest_bf16(terms[0], low, high);
}

// NaN if either is.
__device__ inline float larger(float a, float b) {
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
}

// One of the two queries of which a lane has values.
struct Query {
  std::int32_t row, head;   // row: none when negative
  std::int32_t begin, end;  // tokens it sees

  __device__ bool is_one() const { return row >= 0; }
  __device__ bool sees(std::int32_t token) const { return token >= begin && token < end; }
  __device__ bool has_part(std::int32_t part) const {
    return begin < (part + 1) * kPartTokens && end > part * kPartTokens;
  }
};

// Softmax of a query's tokens so far, of one part or of all before it.
template <int kTiles>
struct Sums {
  float top[2], sum[2];
  float values[kTiles][4];  // [tile of 8 columns]: two of each query

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < 2; ++i) top[i] = -INFINITY, sum[i] = 0;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int e = 0; e < 4; ++e) values[tile][e] = 0;
  }
};

// kTogether: all warps have the same queries.
template <int kDim, bool kTogether>
class TileWorker {
 public:
  static constexpr int kShare = kTogether ? kWarps : 1;
  static constexpr int kColumnTiles = kDim / 8 / kShare, kTokenTiles = kBlockTokens / 8 / kShare;  // of a warp
  using Shared = TileShared<kDim, kTogether>;

  __device__ TileWorker(Shared& s, const TileOp& op, RowTile tile)
      : s_(s),
        op_(op),
        warp_(static_cast<int>(threadIdx.x) / 32),
        lane_(static_cast<int>(threadIdx.x) % 32),
        kv_head_(static_cast<std::int32_t>(blockIdx.y) / op.chunks),
        table_(op.a.block_table + op.a.sequences[tile.first] * op.a.table_stride) {
    const std::int32_t in_group = static_cast<std::int32_t>(blockIdx.y) % op.chunks * op.heads;
    first_head_ = kv_head_ * op.a.group + in_group;
    heads_ = min(op.heads, op.a.group - in_group);
    load_queries(tile);
#pragma unroll
    for (int i = 0; i < 2; ++i) query_[i] = query(tile, set() * kQueriesOfWarp + lane_ / 4 + 8 * i);
    find_range();
  }

  // Parts [first, end) of those that the tile's rows see, each left in scratch or merged into the result.
  __device__ void attend(std::int32_t first, std::int32_t end) {
    const std::int32_t begin = max(s_.begin, first * kPartTokens) / kBlockTokens,
                       stop = (min(s_.end, end * kPartTokens) + kBlockTokens - 1) / kBlockTokens;
    if (begin >= stop) return;
    Sums<kColumnTiles> part, all;
    part.clear();
    all.clear();
    fetch(begin, 0);
    for (std::int32_t page = begin, place = 0; page < stop; ++page, place ^= 1) {
      ptx::wait_for_copies<0>();
      __syncthreads();  // the page is there, and the other place has been read
      if (page + 1 < stop) fetch(page + 1, place ^ 1);
      const bool partly = !all_see(page);
      if (partly) take_out_broken(place);
      if (page * kBlockTokens < end_ && (page + 1) * kBlockTokens > begin_) add_page(page, place, partly, part);
      constexpr std::int32_t kPages = kPartTokens / kBlockTokens;
      if ((page + 1) % kPages != 0 && page + 1 < stop) continue;
      if (op_.a.scratch)
        store_part(page / kPages, part);
      else
        merge(page / kPages, part, all);
      part.clear();
    }
    if (!op_.a.scratch) store(all);
  }

 private:
  __device__ int set() const { return kTogether ? 0 : warp_; }  // of 16 queries
  __device__ int first_token_tile() const { return kTogether ? warp_ * kTokenTiles : 0; }
  __device__ int first_column_tile() const { return kTogether ? warp_ * kColumnTiles : 0; }

  __device__ Query query(const RowTile& tile, int at) const {
    const std::int32_t row = at / heads_;
    if (row >= tile.count) return {-1, 0, 0, 0};
    const Seen seen(op_.a, tile.first + row);
    return {tile.first + row, first_head_ + at % heads_, seen.begin, seen.end};
  }

  __device__ void load_queries(const RowTile& tile) {
    const std::uint32_t to = ptx::shared_address(s_.q[set()]);
    constexpr int kChunks = Layout<kDim>::kChunks, kLoaders = kTogether ? kThreads : 32;
    for (int i = static_cast<int>(threadIdx.x) % kLoaders; i < kQueriesOfWarp * kChunks; i += kLoaders) {
      const int at = i / kChunks, chunk = i % kChunks, in_tile = set() * kQueriesOfWarp + at;
      const std::int32_t row = in_tile / heads_;
      std::uint32_t terms[4][kTerms] = {};
      if (row < tile.count) {
        const float* from = op_.a.q[tile.first + row] + (first_head_ + in_tile % heads_) * kDim + 8 * chunk;
#pragma unroll
        for (int pair = 0; pair < 4; ++pair) cut(from[2 * pair], from[2 * pair + 1], terms[pair]);
      }
#pragma unroll
      for (int term = 0; term < kTerms; ++term)
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to + term * kQueriesOfWarp * 2 * kDim +
                                                                      Layout<kDim>::offset(at, chunk)),
                     "r"(terms[0][term]), "r"(terms[1][term]), "r"(terms[2][term]), "r"(terms[3][term])
                     : "memory");
    }
  }

  // The tokens that the warp's queries see, and those of the tile.
  __device__ void find_range() {
    const auto of = [&](int i) { return query_[i].is_one(); };
    begin_ = __reduce_min_sync(~0u, min(of(0) ? query_[0].begin : INT_MAX, of(1) ? query_[1].begin : INT_MAX));
    end_ = __reduce_max_sync(~0u, max(of(0) ? query_[0].end : 0, of(1) ? query_[1].end : 0));
    const std::int32_t last_begin =
        __reduce_max_sync(~0u, max(of(0) ? query_[0].begin : 0, of(1) ? query_[1].begin : 0));
    const std::int32_t first_end =
        __reduce_min_sync(~0u, min(of(0) ? query_[0].end : INT_MAX, of(1) ? query_[1].end : INT_MAX));
    if (threadIdx.x == 0) s_.begin = s_.end_of_all = INT_MAX, s_.end = s_.begin_of_all = 0;
    __syncthreads();
    if (lane_ == 0) {
      atomicMin(&s_.begin, begin_);
      atomicMax(&s_.end, end_);
      atomicMax(&s_.begin_of_all, last_begin);
      atomicMin(&s_.end_of_all, first_end);
    }
    __syncthreads();
  }

  // Tokens that no row of the tile sees are zeros: what lies there may be anything.
  __device__ void fetch(std::int32_t page, int place) {
    const std::int32_t block = table_[page];
    const __nv_bfloat16 *k = op_.pages.k(block, kv_head_), *v = op_.pages.v(block, kv_head_);
    const std::uint32_t to_k = ptx::shared_address(s_.k[place]), to_v = ptx::shared_address(s_.v[place]);
    constexpr int kChunks = Layout<kDim>::kChunks;
#pragma unroll 8
    for (int i = static_cast<int>(threadIdx.x); i < kBlockTokens * kChunks; i += kThreads) {
      const int token = i / kChunks, chunk = i % kChunks;
      const std::int32_t position = page * kBlockTokens + token;
      const bool there = position >= s_.begin && position < s_.end;
      ptx::copy_16_async(to_k + Layout<kDim>::offset(token, chunk), k + 8 * i, there);
      ptx::copy_16_async(to_v + Layout<kDim>::offset(token, chunk), v + 8 * i, there);
    }
    ptx::commit_copies();
  }

  // Scores of the warp's queries with a page's tokens.
  __device__ void score(int place, float (&scores)[kTokenTiles][4]) const {
    const std::uint32_t q = ptx::shared_address(s_.q[set()]), k = ptx::shared_address(s_.k[place]);
    const int eight = lane_ / 8, in_eight = lane_ % 8;
#pragma unroll
    for (int tile = 0; tile < kTokenTiles; ++tile)
#pragma unroll
      for (int e = 0; e < 4; ++e) scores[tile][e] = 0;
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      std::uint32_t a[kTerms][4];  // rows 0 … 7 and 8 … 15, of the step's first eight columns and its last
#pragma unroll
      for (int term = 0; term < kTerms; ++term)
        ptx::load_matrices(a[term], q + term * kQueriesOfWarp * 2 * kDim +
                                        Layout<kDim>::offset(eight % 2 * 8 + in_eight, 2 * step + eight / 2));
#pragma unroll
      for (int pair = 0; pair < kTokenTiles / 2; ++pair) {  // of tiles of eight tokens
        std::uint32_t b[4];
        const int token = 8 * (first_token_tile() + 2 * pair + eight / 2) + in_eight;
        ptx::load_matrices(b, k + Layout<kDim>::offset(token, 2 * step + eight % 2));
#pragma unroll
        for (int term = kTerms - 1; term >= 0; --term) {
          ptx::mma_m16n8k16(scores[2 * pair], a[term][0], a[term][1], a[term][2], a[term][3], b[0], b[1]);
          ptx::mma_m16n8k16(scores[2 * pair + 1], a[term][0], a[term][1], a[term][2], a[term][3], b[2], b[3]);
        }
      }
    }
  }

  // The largest of each query's scores of the page, or of part.
  __device__ void find_top(std::int32_t page, bool partly, float (&scores)[kTokenTiles][4],
                           const Sums<kColumnTiles>& part, float (&top)[2]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      top[i] = -INFINITY;
#pragma unroll
      for (int tile = 0; tile < kTokenTiles; ++tile)
#pragma unroll
        for (int e = 2 * i; e < 2 * i + 2; ++e) {
          const std::int32_t in_page = 8 * (first_token_tile() + tile) + 2 * (lane_ % 4) + e % 2;
          float& score = scores[tile][e];
          score = query_[i].sees(page * kBlockTokens + in_page) ? score * op_.a.scale : -INFINITY;
          if (partly && s_.broken[in_page] && score != -INFINITY) score = NAN;
          top[i] = larger(top[i], score);
        }
      top[i] = larger(top[i], __shfl_xor_sync(~0u, top[i], 1));
      top[i] = larger(top[i], __shfl_xor_sync(~0u, top[i], 2));
    }
    if constexpr (kTogether) {
      Exchange& x = s_.exchange[0];
#pragma unroll
      for (int i = 0; i < 2; ++i)
        if (lane_ % 4 == 0) x.top[warp_][lane_ / 4 + 8 * i] = top[i];
      __syncthreads();
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int w = 0; w < kWarps; ++w) top[i] = larger(top[i], x.top[w][lane_ / 4 + 8 * i]);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) top[i] = larger(part.top[i], top[i]);
  }

  // Scores to probabilities relative to the largest so far, by which what was summed is scaled. Sums of 16 tokens are
  // added pair by pair.
  __device__ void soften(std::int32_t page, bool partly, float (&scores)[kTokenTiles][4], Sums<kColumnTiles>& part) {
    constexpr int kPairs = kTokenTiles / 2;
    float top[2], sums[2][kWarps];
    find_top(page, partly, scores, part, top);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const bool any = top[i] != -INFINITY;
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        float sum = 0;
#pragma unroll
        for (int tile = 2 * pair; tile < 2 * pair + 2; ++tile)
#pragma unroll
          for (int e = 2 * i; e < 2 * i + 2; ++e) {
            scores[tile][e] = any ? expf(scores[tile][e] - top[i]) : 0.0f;
            sum += scores[tile][e];
          }
        sum = quad_sum(sum);
        sums[i][pair] = sum;
      }
    }
    if constexpr (kTogether) exchange(scores, sums);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float factor = top[i] != -INFINITY ? expf(part.top[i] - top[i]) : 1.0f;
      part.top[i] = top[i];
      part.sum[i] = part.sum[i] * factor + ((sums[i][0] + sums[i][1]) + (sums[i][2] + sums[i][3]));
#pragma unroll
      for (int tile = 0; tile < kColumnTiles; ++tile) {
        part.values[tile][2 * i] *= factor;
        part.values[tile][2 * i + 1] *= factor;
      }
    }
  }

  // Probabilities of 16 tokens as an operand of the tensor cores.
  __device__ static void cut_tokens(const float (&low)[4], const float (&high)[4], std::uint32_t (&a)[4][kTerms]) {
    cut(low[0], low[1], a[0]);
    cut(low[2], low[3], a[1]);
    cut(high[0], high[1], a[2]);
    cut(high[2], high[3], a[3]);
  }

  // Gives the warp's probabilities to all, and gets everybody's sums.
  __device__ void exchange(const float (&p)[kTokenTiles][4], float (&sums)[2][kWarps]) {
    Exchange& x = s_.exchange[0];
    std::uint32_t a[4][kTerms];
    cut_tokens(p[0], p[1], a);
#pragma unroll
    for (int term = 0; term < kTerms; ++term)
      x.p[warp_][term][lane_] = make_uint4(a[0][term], a[1][term], a[2][term], a[3][term]);
#pragma unroll
    for (int i = 0; i < 2; ++i)
      if (lane_ % 4 == 0) x.sum[warp_][lane_ / 4 + 8 * i] = sums[i][0];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int w = 0; w < kWarps; ++w) sums[i][w] = x.sum[w][lane_ / 4 + 8 * i];
  }

  // Adds probabilities times values.
  __device__ void gather(int place, const float (&p)[kTokenTiles][4], Sums<kColumnTiles>& part) const {
    const std::uint32_t v = ptx::shared_address(s_.v[place]);
    const int eight = lane_ / 8, in_eight = lane_ % 8;
#pragma unroll
    for (int step = 0; step < kBlockTokens / 16; ++step) {
      std::uint32_t a[4][kTerms];
      if constexpr (kTogether) {
#pragma unroll
        for (int term = 0; term < kTerms; ++term) {
          const uint4 x = s_.exchange[0].p[step][term][lane_];
          a[0][term] = x.x, a[1][term] = x.y, a[2][term] = x.z, a[3][term] = x.w;
        }
      } else {
        cut_tokens(p[2 * step], p[2 * step + 1], a);
      }
#pragma unroll
      for (int pair = 0; pair < kColumnTiles / 2; ++pair) {
        std::uint32_t b[4];
        ptx::load_matrices_transposed(b, v + Layout<kDim>::offset(16 * step + eight % 2 * 8 + in_eight,
                                                                  first_column_tile() + 2 * pair + eight / 2));
#pragma unroll
        for (int term = kTerms - 1; term >= 0; --term) {
          ptx::mma_m16n8k16(part.values[2 * pair], a[0][term], a[1][term], a[2][term], a[3][term], b[0], b[1]);
          ptx::mma_m16n8k16(part.values[2 * pair + 1], a[0][term], a[1][term], a[2][term], a[3][term], b[2], b[3]);
        }
      }
    }
  }

  // Whether every row of the tile sees all of a page that any sees.
  __device__ bool all_see(std::int32_t page) const {
    return max(page * kBlockTokens, s_.begin) >= s_.begin_of_all &&
           min((page + 1) * kBlockTokens, s_.end) <= s_.end_of_all;
  }

  // Values that are not finite make zeros, so that they reach no row that does not see them; who does is told.
  __device__ void take_out_broken(int place) {
    if (threadIdx.x < kBlockTokens) s_.broken[threadIdx.x] = false;
    __syncthreads();
    constexpr int kChunks = Layout<kDim>::kChunks;
    for (int i = static_cast<int>(threadIdx.x); i < kBlockTokens * kChunks; i += kThreads) {
      const int token = i / kChunks;
      auto* words = reinterpret_cast<uint4*>(s_.v[place] + Layout<kDim>::offset(token, i % kChunks));
      const uint4 v = *words;
      const auto is_broken = [](std::uint32_t pair) {
        return (pair & 0x7f80u) == 0x7f80u || (pair & 0x7f800000u) == 0x7f800000u;
      };
      if (!is_broken(v.x) && !is_broken(v.y) && !is_broken(v.z) && !is_broken(v.w)) continue;
      *words = {};
      s_.broken[token] = true;
    }
    __syncthreads();
  }

  __device__ void add_page(std::int32_t page, int place, bool partly, Sums<kColumnTiles>& part) {
    float scores[kTokenTiles][4];
    score(place, scores);
    soften(page, partly, scores, part);
    gather(place, scores, part);
  }

  __device__ void merge(std::int32_t index, const Sums<kColumnTiles>& part, Sums<kColumnTiles>& all) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (!query_[i].has_part(index)) continue;
      Merged m{all.top[i], all.sum[i]};
      const MergeFactors factors = m.add(part.top[i], part.sum[i]);
      all.top[i] = m.top;
      all.sum[i] = m.sum;
#pragma unroll
      for (int tile = 0; tile < kColumnTiles; ++tile)
#pragma unroll
        for (int e = 2 * i; e < 2 * i + 2; ++e)
          all.values[tile][e] = all.values[tile][e] * factors.before + part.values[tile][e] * factors.part;
    }
  }

  // The lane's columns of query i, two by two.
  template <class To>
  __device__ void for_pairs(int i, const Sums<kColumnTiles>& sums, const To& to) const {
#pragma unroll
    for (int tile = 0; tile < kColumnTiles; ++tile)
      to(8 * (first_column_tile() + tile) + 2 * (lane_ % 4), sums.values[tile][2 * i], sums.values[tile][2 * i + 1]);
  }

  __device__ void store_part(std::int32_t part, const Sums<kColumnTiles>& sums) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Query& q = query_[i];
      if (!q.is_one() || !q.has_part(part)) continue;
      const std::int64_t at = (static_cast<std::int64_t>(q.row) * op_.a.heads + q.head) * op_.a.parts_max + part;
      float* to = op_.a.scratch + at * (kDim + 2);
      if (lane_ % 4 == 0 && (!kTogether || warp_ == 0)) to[0] = sums.top[i], to[1] = sums.sum[i];
      for_pairs(i, sums,
                [&](int column, float a, float b) { *reinterpret_cast<float2*>(to + 2 + column) = make_float2(a, b); });
    }
  }

  __device__ void store(const Sums<kColumnTiles>& sums) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Query& q = query_[i];
      if (!q.is_one()) continue;
      float* to = op_.a.out[q.row] + q.head * kDim;
      for_pairs(i, sums, [&](int column, float a, float b) {
        to[column] = a / sums.sum[i];
        to[column + 1] = b / sums.sum[i];
      });
    }
  }

  Shared& s_;
  const TileOp& op_;
  int warp_, lane_;
  std::int32_t kv_head_, first_head_, heads_;
  const std::int32_t* table_;
  Query query_[2];
  std::int32_t begin_, end_;
};

// Grid: tile of rows, key head and chunk of its heads, part (or 1, and the block does all parts).
template <int kDim, bool kTogether>
__global__ void __launch_bounds__(kThreads, kTogether ? 3 : 2) attend_tile(const __grid_constant__ TileOp op) {
  auto& s = ptx::dynamic_shared<TileShared<kDim, kTogether>>();
  const auto at = static_cast<std::int32_t>(blockIdx.x);
  const RowTile tile = op.tiles ? op.tiles[at] : RowTile{at, 1};
  if (tile.count == 0) return;
  TileWorker<kDim, kTogether> worker(s, op, tile);
  const auto part = static_cast<std::int32_t>(blockIdx.z);
  if (op.a.scratch)
    worker.attend(part, part + 1);
  else
    worker.attend(0, op.a.parts_max);
}

constexpr int kListThreads = 1024;

// Neighbouring rows of one sequence, so many at once.
__global__ void __launch_bounds__(kListThreads)
    list_tiles(const std::int32_t* sequences, std::int32_t rows, std::int32_t tile_rows, RowTile* tiles,
               std::int32_t tile_count) {
  __shared__ std::int32_t warps[kListThreads / 32], last;
  std::int32_t run = 0, listed = 0;  // where the run of rows of the last row began; tiles so far
  for (std::int32_t base = 0; base < rows; base += kListThreads) {
    const std::int32_t row = base + static_cast<std::int32_t>(threadIdx.x);
    const auto begins = [&](std::int32_t r) { return r == 0 || sequences[r] != sequences[r - 1]; };
    const bool is_row = row < rows;
    const std::int32_t began = max(run, block_scan(is_row && begins(row) ? row : 0, warps,
                                                   [](std::int32_t a, std::int32_t b) { return max(a, b); }));
    const bool is_first = is_row && (row - began) % tile_rows == 0;
    std::int32_t total = 0;
    const std::int32_t index = listed + block_scan_sum(is_first ? 1 : 0, warps, total);
    if (is_first) {
      std::int32_t count = 1;
      while (count < tile_rows && row + count < rows && !begins(row + count)) ++count;
      if (index <= tile_count) tiles[index - 1] = {row, count};
    }
    if (threadIdx.x == kListThreads - 1) last = began;
    __syncthreads();
    run = last, listed += total;
  }
  for (std::int32_t t = listed + static_cast<std::int32_t>(threadIdx.x); t < tile_count; t += kListThreads)
    tiles[t] = {0, 0};
}

template <int kDim, bool kTogether>
void launch(const TileOp& op, const TileShape& shape, cudaStream_t stream) {
  constexpr std::size_t kBytes = sizeof(TileShared<kDim, kTogether>);
  need(cudaFuncSetAttribute(attend_tile<kDim, kTogether>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                            static_cast<int>(kBytes)),
       "asking for shared memory");
  const dim3 grid(static_cast<unsigned>(shape.tiles), static_cast<unsigned>(op.pages.kv_heads * op.chunks),
                  static_cast<unsigned>(op.a.scratch ? op.a.parts_max : 1));
  attend_tile<kDim, kTogether><<<grid, kThreads, kBytes, stream>>>(op);
  need(cudaGetLastError(), "starting paged_attention of tiles");
}

}  // namespace

void attend_tiles(const Attention& a, const Pages<__nv_bfloat16>& pages, std::int64_t rows, const TileShape& shape,
                  RowTile* list, cudaStream_t stream) {
  if (shape.listed) {
    list_tiles<<<1, kListThreads, 0, stream>>>(a.sequences, static_cast<std::int32_t>(rows), shape.rows, list,
                                               static_cast<std::int32_t>(shape.tiles));
    need(cudaGetLastError(), "starting the list of tiles");
  }
  const TileOp op{a, pages, shape.listed ? list : nullptr, shape.heads, shape.chunks};
  const bool together = shape.queries == kQueriesOfWarp;
  if (pages.k_dim == 128)
    return together ? launch<128, true>(op, shape, stream) : launch<128, false>(op, shape, stream);
  return together ? launch<64, true>(op, shape, stream) : launch<64, false>(op, shape, stream);
}

}  // namespace tandem::cuda
