// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Attention of single rows over pages, in f32; MFA and MLA pages have kernels of their own (mfa_pages.cpp,
// mla_pages.cpp).
//
// A block of threads has one row and up to 32 query heads that share a key head, so K and V of a page are fetched once
// for all of them. The context is cut into parts of 512 tokens from position 0; within a part softmax runs along, page
// by page; parts are then merged in order. When there are few rows each part gets a block of its own and a second
// kernel merges, else one block walks through all parts and merges as it goes: the same operations in the same order,
// so the choice shows in the time alone.
//
// Scores and outputs are made on the tensor cores in terms of bf16 (terms.cuh): a bf16 page is one term, queries and
// probabilities are three, so what is computed is f32. Sums are taken over into f32 registers every 128 columns and
// every page.
//
// Bound by latency where rows are few, by shared memory where many heads share a key head. Prefill reads the pages once
// per row.
#include <cuda_bf16.h>

#include <algorithm>
#include <type_traits>

#include "ops/cuda/attention/tile_attention.cuh"
#include "ops/cuda/attention_parts.cuh"
#include "ops/cuda/cuda_kv_cache.cuh"
#include "ops/cuda/ptx/e4m3.cuh"
#include "ops/cuda/ptx/mma.cuh"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/terms.cuh"

namespace tandem::cuda {

namespace {

constexpr int kThreadsMax = 512;

// The heads of a block of threads, and how many of these a group takes.
struct HeadChunks {
  std::int32_t at_once, chunks;
};

// The tokens of a page that count.
struct Live {
  std::int32_t begin, end;
  __device__ bool has(std::int32_t token) const { return token >= begin && token < end; }
};

// What a page stores, in shared memory: codes of E4M3 are widened on the way.
template <class Stored>
struct InShared {
  using Type = Stored;
};
template <>
struct InShared<std::uint8_t> {
  using Type = float;
};

// The live tokens of a page on their way to shared memory, each dim wide; the other rows and what is left of each row
// are zero. Rows of whole vectors are first all asked for, then stored.
template <class Stored>
struct Fetch {
  using T = typename InShared<Stored>::Type;
  static constexpr bool kIsCodes = !std::is_same_v<T, Stored>;
  static constexpr int kVector = 16 / sizeof(Stored);
  static constexpr int kAtOnce = 4;
  const Stored* from;
  const float* scales;  // of codes, one a token
  std::int32_t dim;
  T* to;
  std::int32_t stride;
  Live live;

  __device__ bool is_whole() const { return dim % kVector == 0; }
  __device__ std::int32_t vectors() const { return kBlockTokens * (dim / kVector); }
  __device__ static std::int32_t place(std::int32_t begin, int i) {
    return begin + static_cast<std::int32_t>(threadIdx.x + i * blockDim.x);
  }
  __device__ void load(std::int32_t begin, uint4 (&bits)[kAtOnce]) const {
    const std::int32_t in_row = dim / kVector;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const std::int32_t at = place(begin, i);
      bits[i] = {};
      if (at < vectors() && live.has(at / in_row))
        bits[i] = __ldg(reinterpret_cast<const uint4*>(from + at / in_row * dim + at % in_row * kVector));
    }
  }
  __device__ void store(std::int32_t begin, const uint4 (&bits)[kAtOnce]) const {
    const std::int32_t in_row = dim / kVector;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const std::int32_t at = place(begin, i);
      if (at >= vectors()) continue;
      T* row = to + at / in_row * stride + at % in_row * kVector;
      if constexpr (kIsCodes) {
        const float scale = live.has(at / in_row) ? scales[at / in_row] : 0;
        widen(row, bits[i].x, scale);
        widen(row + 4, bits[i].y, scale);
        widen(row + 8, bits[i].z, scale);
        widen(row + 12, bits[i].w, scale);
      } else {
        // Rows in shared memory begin on 8 bytes.
        *reinterpret_cast<uint2*>(row) = {bits[i].x, bits[i].y};
        *reinterpret_cast<uint2*>(row + kVector / 2) = {bits[i].z, bits[i].w};
      }
    }
  }
  __device__ static void widen(float* row, std::uint32_t codes, float scale) {
    const float2 low = ptx::from_e4m3(codes & 0xffffu), high = ptx::from_e4m3(codes >> 16);
    *reinterpret_cast<float4*>(row) = {low.x * scale, low.y * scale, high.x * scale, high.y * scale};
  }
  __device__ T element(std::int32_t token, std::int32_t column) const {
    const Stored value = from[token * dim + column];
    if constexpr (kIsCodes)
      return ptx::from_e4m3(value).x * scales[token];
    else
      return value;
  }
  __device__ void copy_elements() const {
    for (auto i = static_cast<std::int32_t>(threadIdx.x); i < kBlockTokens * stride;
         i += static_cast<std::int32_t>(blockDim.x)) {
      const std::int32_t token = i / stride, column = i % stride;
      to[i] = live.has(token) && column < dim ? element(token, column) : T(0.0f);
    }
  }
};

// K and V of a page together, so that one waits for memory while the other does.
template <class Stored>
__device__ void fetch(const Fetch<Stored>& k, const Fetch<Stored>& v) {
  if (!k.is_whole() || !v.is_whole()) {
    k.copy_elements();
    v.copy_elements();
    return;
  }
  for (std::int32_t begin = 0; begin < max(k.vectors(), v.vectors());
       begin += Fetch<Stored>::kAtOnce * static_cast<std::int32_t>(blockDim.x)) {
    uint4 of_k[Fetch<Stored>::kAtOnce], of_v[Fetch<Stored>::kAtOnce];
    k.load(begin, of_k);
    v.load(begin, of_v);
    k.store(begin, of_k);
    v.store(begin, of_v);
  }
}

// What a block of threads keeps in shared memory; widths are rounded up to fours.
template <class T>
struct Shared {
  std::int32_t k_stride, v_stride;
  T *k, *v;
  float *q, *p;                            // [heads][k_stride], [heads][kScoreStride]
  float *top, *sum, *factor;               // [heads] of the part
  float *top_merged, *sum_merged, *a, *b;  // [heads]

  template <class Stored>
  __device__ Shared(unsigned char* memory, const Pages<Stored>& pages, std::int32_t heads)
      : k_stride(padded_width(pages.k_dim)), v_stride(pages.v_in_k ? k_stride : padded_width(pages.v_dim)) {
    k = reinterpret_cast<T*>(memory);
    v = pages.v_in_k ? k : k + kBlockTokens * k_stride;
    q = reinterpret_cast<float*>(v + kBlockTokens * v_stride);
    p = q + heads * k_stride;
    top = p + heads * kScoreStride;
    sum = top + heads;
    factor = sum + heads;
    top_merged = factor + heads;
    sum_merged = top_merged + heads;
    a = sum_merged + heads;
    b = a + heads;
  }
};

// ---- terms of operands, two adjacent values to a register

template <class T>
inline constexpr int kTermsOf = sizeof(T) == 2 ? 1 : 3;

__device__ void cut(__nv_bfloat16 low, __nv_bfloat16 high, std::uint32_t (&terms)[1]) {
  terms[0] = __bfloat16_as_ushort(low) | static_cast<std::uint32_t>(__bfloat16_as_ushort(high)) << 16;
}
__device__ void cut(float low, float high, std::uint32_t (&terms)[3]) {
  split_pair(low, high, terms);
}

// Columns at and at + 1 of a row that has count; of whole steps both are there.
template <bool kWhole, class T>
__device__ void cut_columns(const T* row, std::int32_t at, std::int32_t count, std::uint32_t (&terms)[kTermsOf<T>]) {
  struct alignas(2 * sizeof(T)) Pair {
    T low, high;
  };
  if constexpr (kWhole) {
    const Pair pair = *reinterpret_cast<const Pair*>(row + at);
    cut(pair.low, pair.high, terms);
  } else {
    cut(at < count ? row[at] : T(0.0f), at + 1 < count ? row[at + 1] : T(0.0f), terms);
  }
}

// Sums of products of terms, those below 2⁻²² of the whole left out.
template <int kA, int kB>
__device__ void add_products(float (&sums)[4], const std::uint32_t (&a)[4][kA], const std::uint32_t (&b)[2][kB]) {
#pragma unroll
  for (int i = 0; i < kA; ++i)
#pragma unroll
    for (int j = 0; j < kB; ++j)
      if (i + j < 3) ptx::mma_m16n8k16(sums, a[0][i], a[1][i], a[2][i], a[3][i], b[0][j], b[1][j]);
}

// Scores of one page: a warp has tiles of 16 tokens and 8 heads.
template <class T>
__device__ void score(const Shared<T>& s, std::int32_t heads, std::int32_t k_dim, const Live& live, float scale) {
  constexpr std::int32_t kTokenTiles = kBlockTokens / 16, kDepth = 128;  // between promotions
  const std::int32_t lane = static_cast<std::int32_t>(threadIdx.x) % 32,
                     warps = static_cast<std::int32_t>(blockDim.x) / 32;
  const std::int32_t outer = lane / 4, inner = 2 * (lane % 4);
  for (std::int32_t tile = static_cast<std::int32_t>(threadIdx.x) / 32; tile < kTokenTiles * ((heads + 7) / 8);
       tile += warps) {
    const std::int32_t token = tile % kTokenTiles * 16 + outer, head = tile / kTokenTiles * 8;
    const T *low = s.k + token * s.k_stride, *high = low + 8 * s.k_stride;
    const float* query = s.q + min(head + outer, heads - 1) * s.k_stride;
    float total[4] = {};
    for (std::int32_t begin = 0; begin < k_dim; begin += kDepth) {
      float sums[4] = {};
      const auto add = [&]<bool kWhole>(std::int32_t at) {
        std::uint32_t a[4][kTermsOf<T>], b[2][3];
        cut_columns<kWhole>(low, at, k_dim, a[0]);
        cut_columns<kWhole>(high, at, k_dim, a[1]);
        cut_columns<kWhole>(low, at + 8, k_dim, a[2]);
        cut_columns<kWhole>(high, at + 8, k_dim, a[3]);
        cut_columns<kWhole>(query, at, k_dim, b[0]);
        cut_columns<kWhole>(query, at + 8, k_dim, b[1]);
        add_products(sums, a, b);
      };
      std::int32_t at = begin;
#pragma unroll 4
      for (; at + 16 <= min(begin + kDepth, k_dim); at += 16) add.template operator()<true>(at + inner);
      if (at < min(begin + kDepth, k_dim)) add.template operator()<false>(at + inner);
#pragma unroll
      for (int i = 0; i < 4; ++i) total[i] += sums[i];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::int32_t t = token + 8 * (i / 2), h = head + inner + i % 2;
      if (h < heads) s.p[h * kScoreStride + t] = live.has(t) ? total[i] * scale : -INFINITY;
    }
  }
}

// Scores to probabilities relative to the largest score so far; what was gathered before is to be scaled by factor.
template <class T>
__device__ void soften(const Shared<T>& s, std::int32_t heads, const Live& live, bool first_page) {
  const std::int32_t lane = static_cast<std::int32_t>(threadIdx.x) % 32;
  for (std::int32_t h = static_cast<std::int32_t>(threadIdx.x) / 32; h < heads;
       h += static_cast<std::int32_t>(blockDim.x) / 32) {
    float* p = s.p + h * kScoreStride;
    const float before = first_page ? -INFINITY : s.top[h];
    const float top = fmaxf(before, warp_max(fmaxf(p[lane], p[lane + 32])));
    const float low = live.has(lane) ? expf(p[lane] - top) : 0.0f;
    const float high = live.has(lane + 32) ? expf(p[lane + 32] - top) : 0.0f;
    const float sum = warp_sum(low + high);
    __syncwarp();
    p[lane] = low;
    p[lane + 32] = high;
    if (lane != 0) continue;
    const float factor = first_page ? 0.0f : expf(before - top);
    s.factor[h] = factor;
    s.sum[h] = first_page ? sum : s.sum[h] * factor + sum;
    s.top[h] = top;
  }
}

// The thread's values of the output: those of its lane in tiles of 16 columns and 8 heads that its warp has.
template <int kMine>
struct Mine {
  std::int32_t first_column[kMine / 4], first_head[kMine / 4];
  __device__ explicit Mine(std::int32_t v_dim) {
    const std::int32_t column_tiles = (v_dim + 15) / 16, lane = static_cast<std::int32_t>(threadIdx.x) % 32;
    std::int32_t tile = static_cast<std::int32_t>(threadIdx.x) / 32;
#pragma unroll
    for (int j = 0; j < kMine / 4; ++j, tile += static_cast<std::int32_t>(blockDim.x) / 32) {
      first_column[j] = tile % column_tiles * 16 + lane / 4;
      first_head[j] = tile / column_tiles * 8 + 2 * (lane % 4);
    }
  }
  __device__ std::int32_t column(int i) const { return first_column[i / 4] + i % 4 / 2 * 8; }
  __device__ std::int32_t head(int i) const { return first_head[i / 4] + i % 2; }
};

template <class T, int kMine>
__device__ void gather(const Shared<T>& s, const Mine<kMine>& mine, std::int32_t heads, std::int32_t v_dim,
                       const Live& live, bool first_page, float (&values)[kMine]) {
  const std::int32_t lane = static_cast<std::int32_t>(threadIdx.x) % 32, inner = 2 * (lane % 4);
#pragma unroll
  for (int j = 0; j < kMine / 4; ++j) {
    const std::int32_t head = mine.first_head[j] - inner;  // of the tile
    if (head >= heads) continue;
    const std::int32_t low = min(mine.column(4 * j), v_dim - 1), high = min(mine.column(4 * j + 2), v_dim - 1);
    const float* p = s.p + min(head + lane / 4, heads - 1) * kScoreStride;
    float sums[4] = {};
    for (std::int32_t t = live.begin / 16 * 16 + inner; t < live.end + inner; t += 16) {
      const T* v = s.v + t * s.v_stride;
      std::uint32_t a[4][kTermsOf<T>], b[2][3];
      cut(v[low], v[s.v_stride + low], a[0]);
      cut(v[high], v[s.v_stride + high], a[1]);
      cut(v[8 * s.v_stride + low], v[9 * s.v_stride + low], a[2]);
      cut(v[8 * s.v_stride + high], v[9 * s.v_stride + high], a[3]);
      cut(p[t], p[t + 1], b[0]);
      cut(p[t + 8], p[t + 9], b[1]);
      add_products(sums, a, b);
    }
#pragma unroll
    for (int i = 4 * j; i < 4 * j + 4; ++i) {
      const std::int32_t h = min(mine.head(i), heads - 1);
      values[i] = first_page ? sums[i % 4] : values[i] * s.factor[h] + sums[i % 4];
    }
  }
}

template <class T>
__device__ void fetch_queries(const Attention& a, const Shared<T>& s, std::int32_t row, std::int32_t first_head,
                              std::int32_t heads, std::int32_t k_dim) {
  const float* q = a.q[row] + first_head * k_dim;
  for (auto i = static_cast<std::int32_t>(threadIdx.x); i < heads * s.k_stride;
       i += static_cast<std::int32_t>(blockDim.x)) {
    const std::int32_t column = i % s.k_stride;
    s.q[i] = column < k_dim ? q[i / s.k_stride * k_dim + column] : 0.0f;
  }
}

// One part: softmax along its pages. Leaves top and sum in shared memory, the outputs in values.
template <class Stored, class T, int kMine>
__device__ void attend_part(const Attention& a, const Pages<Stored>& pages, const Shared<T>& s, const Mine<kMine>& mine,
                            std::int32_t row, std::int32_t kv_head, std::int32_t heads, std::int32_t part,
                            float (&values)[kMine]) {
  const Seen seen(a, row);
  const std::int32_t* table = a.block_table + a.sequences[row] * a.table_stride;
  const std::int32_t begin = max(part * kPartTokens, seen.begin), end = min((part + 1) * kPartTokens, seen.end);
  bool first_page = true;
  for (std::int32_t at = begin / kBlockTokens * kBlockTokens; at < end; at += kBlockTokens, first_page = false) {
    const Live live{max(begin - at, 0), min(kBlockTokens, end - at)};
    const std::int32_t block = table[at / kBlockTokens];
    __syncthreads();  // the last page has been used
    const auto scales = [&](bool of_k) -> const float* {
      if constexpr (Fetch<Stored>::kIsCodes)
        return of_k ? pages.k_scales(block, kv_head) : pages.v_scales(block, kv_head);
      else
        return nullptr;
    };
    const Fetch<Stored> k{pages.k(block, kv_head), scales(true), pages.k_dim, s.k, s.k_stride, live};
    if (pages.v_in_k)
      fetch(k, Fetch<Stored>{nullptr, nullptr, 0, s.v, 0, live});
    else
      fetch(k, Fetch<Stored>{pages.v(block, kv_head), scales(false), pages.v_dim, s.v, s.v_stride, live});
    __syncthreads();
    score(s, heads, pages.k_dim, live, a.scale);
    __syncthreads();
    soften(s, heads, live, first_page);
    __syncthreads();
    gather(s, mine, heads, pages.v_dim, live, first_page, values);
  }
}

// Adds a part to those before it, in registers.
template <class T, int kMine>
__device__ void merge_here(const Shared<T>& s, const Mine<kMine>& mine, std::int32_t heads, bool first,
                           const float (&values)[kMine], float (&merged)[kMine]) {
  if (static_cast<std::int32_t>(threadIdx.x) < heads) {
    const std::int32_t h = static_cast<std::int32_t>(threadIdx.x);
    Merged m = first ? Merged() : Merged{s.top_merged[h], s.sum_merged[h]};
    const MergeFactors factors = m.add(s.top[h], s.sum[h]);
    s.top_merged[h] = m.top;
    s.sum_merged[h] = m.sum;
    s.a[h] = factors.before;
    s.b[h] = factors.part;
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < kMine; ++j)
    if (mine.head(j) < heads)
      merged[j] = (first ? 0.0f : merged[j]) * s.a[mine.head(j)] + values[j] * s.b[mine.head(j)];
}

// Grid: row, key head and chunk of its heads, part (or 1, and the block does all parts).
template <class Stored, int kMine>
__global__ void __launch_bounds__(kThreadsMax)
    attend(const __grid_constant__ Attention a, HeadChunks heads_of, const __grid_constant__ Pages<Stored> pages) {
  extern __shared__ __align__(16) unsigned char memory[];
  const auto row = static_cast<std::int32_t>(blockIdx.x);
  const std::int32_t kv_head = static_cast<std::int32_t>(blockIdx.y) / heads_of.chunks;
  const std::int32_t in_group = static_cast<std::int32_t>(blockIdx.y) % heads_of.chunks * heads_of.at_once;
  const std::int32_t first_head = kv_head * a.group + in_group, heads = min(heads_of.at_once, a.group - in_group);
  const Seen seen(a, row);
  const auto part = static_cast<std::int32_t>(blockIdx.z);
  if (a.scratch && (part < seen.first_part() || part >= seen.end_part())) return;
  const Shared<typename InShared<Stored>::Type> s(memory, pages, heads_of.at_once);
  const Mine<kMine> mine(pages.v_dim);
  fetch_queries(a, s, row, first_head, heads, pages.k_dim);

  float values[kMine], merged[kMine];
  if (a.scratch) {
    attend_part(a, pages, s, mine, row, kv_head, heads, part, values);
    float* to =
        a.scratch + ((static_cast<std::int64_t>(row) * a.heads + first_head) * a.parts_max + part) * (pages.v_dim + 2);
    const std::int64_t head_stride = static_cast<std::int64_t>(a.parts_max) * (pages.v_dim + 2);
#pragma unroll
    for (int j = 0; j < kMine; ++j)
      if (mine.head(j) < heads && mine.column(j) < pages.v_dim)
        to[mine.head(j) * head_stride + 2 + mine.column(j)] = values[j];
    const auto h = static_cast<std::int32_t>(threadIdx.x);
    if (h < heads) {
      to[h * head_stride] = s.top[h];
      to[h * head_stride + 1] = s.sum[h];
    }
    return;
  }
  for (std::int32_t p = seen.first_part(); p < seen.end_part(); ++p) {
    attend_part(a, pages, s, mine, row, kv_head, heads, p, values);
    merge_here(s, mine, heads, p == seen.first_part(), values, merged);
  }
#pragma unroll
  for (int j = 0; j < kMine; ++j)
    if (mine.head(j) < heads && mine.column(j) < pages.v_dim)
      a.out[row][(first_head + mine.head(j)) * pages.v_dim + mine.column(j)] = merged[j] / s.sum_merged[mine.head(j)];
}

// Grid: row, head.
__global__ void merge_parts(const __grid_constant__ Attention a, std::int32_t v_dim) {
  const Seen seen(a, static_cast<std::int32_t>(blockIdx.x));
  const float* from =
      a.scratch + (static_cast<std::int64_t>(blockIdx.x) * a.heads + blockIdx.y) * a.parts_max * (v_dim + 2);
  for (auto column = static_cast<std::int32_t>(threadIdx.x); column < v_dim;
       column += static_cast<std::int32_t>(blockDim.x)) {
    Merged m;
    float value = 0;
    for (std::int32_t part = seen.first_part(); part < seen.end_part(); ++part) {
      const float* p = from + part * (v_dim + 2);
      const MergeFactors factors = m.add(p[0], p[1]);
      value = value * factors.before + p[2 + column] * factors.part;
    }
    a.out[blockIdx.x][blockIdx.y * v_dim + column] = value / m.sum;
  }
}

template <class T, int kMine>
void launch(const Machine& machine, const Attention& a, HeadChunks heads, const PagedAttention& op) {
  const Pages<T> pages = pages_of<T>(op.cache, op.layer);
  const std::int64_t rows = op.q.rows();
  const KvSpec& spec = op.cache->spec();
  const std::size_t bytes = attention_shared_bytes(spec, heads.at_once);
  // All there is, not what this launch needs: the limit is the kernel's, and other workers launch it at the same time.
  need(cudaFuncSetAttribute(attend<T, kMine>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                            static_cast<int>(kSharedBytesMax)),
       "asking for shared memory");
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(pages.kv_heads * heads.chunks),
                  static_cast<unsigned>(a.scratch ? a.parts_max : 1));
  attend<T, kMine><<<grid, attention_threads(pages.v_dim, heads.at_once), bytes, machine.stream>>>(a, heads, pages);
  need(cudaGetLastError(), "starting paged_attention");
}

// Few outputs per thread where few heads share a key head: fewer registers.
template <class T>
void launch_fitting(const Machine& machine, const Attention& a, HeadChunks heads, const PagedAttention& op) {
  const int outputs = attention_outputs_per_thread(op.cache->spec().v_dim, heads.at_once);
  if (outputs <= 4) return launch<T, 4>(machine, a, heads, op);
  if (outputs <= 16) return launch<T, 16>(machine, a, heads, op);
  launch<T, 32>(machine, a, heads, op);
}

}  // namespace

void run(Machine& machine, const PagedAttention& op) {
  const std::int64_t rows = op.q.rows();
  if (rows == 0) return;
  if (of(op.cache).mfa()) return attend_mfa_pages(machine, op);
  if (of(op.cache).has_mla_pages()) return attend_mla_pages(machine, op);
  const KvSpec& spec = op.cache->spec();
  Attention a{.out = rows_of(op.out),
              .q = rows_of(op.q),
              .sequences = op.sequences.as<const std::int32_t>(),
              .positions = op.positions.as<const std::int32_t>(),
              .block_table = op.block_table.as<const std::int32_t>(),
              .table_stride = op.block_table.row_stride,
              .heads = op.heads,
              .group = op.heads / spec.kv_heads,
              .window = op.window,
              .scale = op.scale,
              .scratch = nullptr,
              .parts_max = static_cast<std::int32_t>(
                  divide_up<std::int64_t>(op.block_table.shape[1] * kBlockTokens, kPartTokens))};
  const bool in_tiles = has_tiles(spec);
  const TileShape tiles = tile_shape(rows, op.block_table.shape[0], a.group);
  HeadChunks heads{.at_once = attention_heads_at_once(spec, a.group), .chunks = 0};
  heads.chunks = divide_up(a.group, heads.at_once);
  const AttentionShape shape{.rows = rows,
                             .heads = op.heads,
                             .blocks = spec.kv_heads * (in_tiles ? tiles.tiles * tiles.chunks : rows * heads.chunks),
                             .v_dim = spec.v_dim,
                             .parts_max = a.parts_max,
                             .context_tokens = op.context_tokens};
  if (parts_apart(shape, machine.multiprocessors, machine.scratch_floats()))
    a.scratch = static_cast<float*>(machine.scratch.data());
  if (in_tiles)
    attend_tiles(a, pages_of<__nv_bfloat16>(op.cache, op.layer), rows, tiles,
                 tiles.listed ? reinterpret_cast<RowTile*>(
                                    machine.workspace(static_cast<std::size_t>(tiles.tiles) * sizeof(RowTile)))
                              : nullptr,
                 machine.stream);
  else if (spec.dtype == DType::kF32)
    launch_fitting<float>(machine, a, heads, op);
  else if (spec.dtype == DType::kBF16)
    launch_fitting<__nv_bfloat16>(machine, a, heads, op);
  else
    launch_fitting<std::uint8_t>(machine, a, heads, op);
  if (!a.scratch) return;
  merge_parts<<<dim3(static_cast<unsigned>(rows), static_cast<unsigned>(a.heads)), 128, 0, machine.stream>>>(
      a, spec.v_dim);
  need(cudaGetLastError(), "starting the merge of paged_attention");
}

}  // namespace tandem::cuda
